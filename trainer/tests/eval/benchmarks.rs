//! Files of every task about a few pictures of noise.

use super::text;
use image::{Rgb, RgbImage};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use tempfile::TempDir;

/// Images, and the classes, captions and objects of each.
const IMAGES: usize = 6;

/// Files of every task about six pictures of noise.
pub(crate) struct Benchmarks {
    folder: TempDir,
}

impl Benchmarks {
    pub(crate) fn new() -> Benchmarks {
        let folder = TempDir::new().expect("a folder");
        let root = folder.path();
        for class in ["dog", "red_cat", "empty"] {
            fs::create_dir_all(root.join("classes").join(class)).expect("made");
        }
        fs::create_dir_all(root.join("images")).expect("made");
        let mut zip = zip::ZipWriter::new(fs::File::create(root.join("dev.zip")).expect("a zip"));
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let [mut pope, mut vsr, mut vqa, mut lines, mut nlvr] = [const { String::new() }; 5];
        for i in 0..IMAGES {
            let path = root.join(format!("images/{i}.png"));
            noise(i as u32).save(&path).expect("an image");
            let class = ["dog", "red_cat"][i % 2];
            fs::copy(&path, root.join(format!("classes/{class}/{i}.png"))).expect("a copy");
            let label = ["yes", "no"][i % 2];
            pope += &format!(
                "{{\"image\": \"{i}.png\", \"text\": \"Is there a dog in the image?\", \"label\": \"{label}\"}}\n"
            );
            let relation = ["under", "in"][i % 2];
            vsr += &format!(
                "{{\"image\": \"{i}.png\", \"caption\": \"The dog is {relation} the cat.\", \"label\": {}, \
                 \"relation\": \"{relation}\"}}\n",
                i % 2
            );
            let people = ["\"two\""; 10].join(", ");
            vqa += &format!("{{\"image\": \"{i}.png\", \"question\": \"How many?\", \"answers\": [{people}]}}\n");
            lines += &format!(
                "{{\"file\": \"{i}.png\", \"captions\": [\"a dog {i}\", \"the red dog\"], \
                 \"objects\": [{{\"category\": \"dog\"}}]}}\n"
            );
            nlvr += &format!(
                "{{\"sentence\": \"a {}\", \"label\": \"true\", \"identifier\": \"{}-{}\"}}\n",
                i / 2,
                i / 2,
                i % 2
            );
            for order in 0..6 {
                zip.start_file(format!("dev-{}-{}-{order}.png", i / 2, i % 2), stored).expect("an entry");
                zip.write_all(&fs::read(&path).expect("the image")).expect("written");
            }
        }
        zip.finish().expect("a whole zip");
        for (name, lines) in [
            ("coco_pope_random.json", &pope),
            ("coco_pope_popular.json", &pope),
            ("vsr.jsonl", &vsr),
            ("vqa.jsonl", &vqa),
            ("lines.jsonl", &lines),
            ("dev.json", &nlvr),
        ] {
            fs::write(root.join(name), lines).expect("written");
        }
        Benchmarks { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `--data` and `--images` of some tasks.
    pub(crate) fn arguments(&self, tasks: &str) -> Vec<String> {
        let at = |task: &str, name: &str| format!("{task}={}", text(&self.path(name)));
        let mut arguments = vec!["--tasks".into(), tasks.into(), "--images".into(), text(&self.path("images")).into()];
        for task in tasks.split(',') {
            let file = match task {
                "pope" => ".",
                "vsr" => "vsr.jsonl",
                "vqa" => "vqa.jsonl",
                "nlvr" => "dev.json",
                "zeroshot" => "classes",
                _ => "lines.jsonl",
            };
            arguments.extend(["--data".into(), at(task, file)]);
            if task == "nlvr" {
                arguments.extend(["--images".into(), at("nlvr", "dev.zip")]);
            }
        }
        arguments
    }
}

fn noise(seed: u32) -> RgbImage {
    RgbImage::from_fn(30, 20, |x, y| {
        let mix = |c: u32| ((x + 1) * (seed * 7 + 3) + (y + c) * (seed * 13 + 5)) as u8;
        Rgb([mix(1), mix(40), mix(90)])
    })
}
