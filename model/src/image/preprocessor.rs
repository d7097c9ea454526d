//! Image processors as `preprocessor_config.json`, or the table `image_processor` of `processor_config.json`, describes them.

use super::{Fit, ImageProcessor, MAX_SIZE, Resample, Resize, Steps};
use crate::error::{Error, Result, at};
use crate::files::write_atomically;
use crate::hf::{self, Fields};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// The file.
const FILE: &str = "preprocessor_config.json";
/// Where transformers 5 keeps the same, as a table of this name; it has precedence there.
const NEWER: (&str, &str) = ("processor_config.json", "image_processor");
/// Lenslet's own field, which `transformers` passes over: the image is resized first and padded then.
const PAD_LAST: &str = "pad_after_resize";
/// CLIP's mean and deviation of colours.
const CLIP: [[f64; 3]; 2] = [[0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_58, 0.275_777_11]];
/// ImageNet's, as some models round them.
const HALF: [[f64; 3]; 2] = [[0.5; 3], [0.5; 3]];
/// Fields that change no pixel here: images are RGB once decoded, and every class has one implementation.
const WITHOUT_EFFECT: [&str; 14] = [
    "_processor_class",
    "_valid_processor_keys",
    "data_format",
    "device",
    "disable_grouping",
    "do_convert_rgb",
    "feature_extractor_type",
    "image_seq_length",
    "input_data_format",
    "pad_size",
    "processor_class",
    "return_tensors",
    "transformers_version",
    "use_fast",
];
/// Fields that change none while they are false.
const OFF: [&str; 5] =
    ["crop_to_patches", "do_flip_channel_order", "do_image_splitting", "rescale_offset", "use_square_size"];

/// The classes of `transformers` that are known; their `Fast` and `Pil` twins, and the feature extractors that they replaced,
/// are read, too, and computed as these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessorType {
    /// `CLIPImageProcessor`: the shorter side, then the middle.
    Clip,
    /// `SiglipImageProcessor`: both sides.
    Siglip,
    /// `BlipImageProcessor`: both sides.
    Blip,
    /// `ViTImageProcessor`: both sides.
    Vit,
    /// `LlavaImageProcessor`: as CLIP's, of an image that may be padded to a square before.
    Llava,
}

impl ProcessorType {
    const ALL: [ProcessorType; 5] =
        [ProcessorType::Clip, ProcessorType::Siglip, ProcessorType::Blip, ProcessorType::Vit, ProcessorType::Llava];

    fn name(self) -> &'static str {
        match self {
            ProcessorType::Clip => "CLIPImageProcessor",
            ProcessorType::Siglip => "SiglipImageProcessor",
            ProcessorType::Blip => "BlipImageProcessor",
            ProcessorType::Vit => "ViTImageProcessor",
            ProcessorType::Llava => "LlavaImageProcessor",
        }
    }

    /// The one that fits.
    fn of(steps: &Steps) -> ProcessorType {
        match steps {
            Steps { pad: Some(_), .. } => ProcessorType::Llava,
            Steps { crop: Some(_), .. } => ProcessorType::Clip,
            _ => ProcessorType::Siglip,
        }
    }

    fn read(fields: &Fields) -> Result<ProcessorType> {
        const FIELD: &str = "image_processor_type";
        let old = fields.optional::<String>("feature_extractor_type")?;
        let known = || ProcessorType::ALL.map(ProcessorType::name).join(", ");
        let Some(name) = fields.optional::<String>(FIELD)?.or(old) else {
            return fields.bad(FIELD, format!("is missing; it is one of {}", known()));
        };
        let class = name.replace("FeatureExtractor", "ImageProcessor");
        let class = ["Fast", "Pil"].iter().find_map(|twin| class.strip_suffix(twin)).unwrap_or(&class);
        match ProcessorType::ALL.into_iter().find(|known| known.name() == class) {
            Some(known) => Ok(known),
            None => fields.bad(FIELD, format!("`{name}` is not supported; {} are", known())),
        }
    }

    /// Whether it knows a shortest edge and a middle.
    fn crops(self) -> bool {
        matches!(self, ProcessorType::Clip | ProcessorType::Llava)
    }

    /// What it takes for a size that its file does not say.
    fn size(self) -> Size {
        match self {
            ProcessorType::Clip | ProcessorType::Llava => Size::Shortest(224),
            ProcessorType::Siglip | ProcessorType::Vit => Size::square(224),
            ProcessorType::Blip => Size::square(384),
        }
    }

    fn colours(self) -> [[f64; 3]; 2] {
        match self {
            ProcessorType::Clip | ProcessorType::Llava | ProcessorType::Blip => CLIP,
            ProcessorType::Siglip | ProcessorType::Vit => HALF,
        }
    }

    fn resample(self) -> u8 {
        if self == ProcessorType::Vit { 2 } else { 3 }
    }
}

/// A size in a file.
#[derive(Debug, Clone, Copy)]
enum Size {
    Number(usize),
    Shortest(usize),
    Both { height: usize, width: usize },
}

impl Size {
    fn square(side: usize) -> Size {
        Size::Both { height: side, width: side }
    }

    /// The size in a field. A table's every key counts: a limit of the longer side makes other pixels.
    fn read(fields: &Fields, field: &str, default: Size) -> Result<Size> {
        let number = |value: &Value| value.as_u64().and_then(|side| usize::try_from(side).ok());
        let expected = "expected a number, {\"shortest_edge\": n} or {\"height\": n, \"width\": n}";
        let table: Map<String, Value> = match fields.optional::<Value>(field)? {
            None => return Ok(default),
            Some(Value::Object(table)) => table.into_iter().filter(|(_, side)| !side.is_null()).collect(),
            Some(value) => match number(&value) {
                Some(side) => return Ok(Size::Number(side)),
                None => return fields.bad(field, expected),
            },
        };
        let side = |key: &str| table.get(key).and_then(number);
        let (size, known): (_, &[&str]) = match (side("shortest_edge"), side("height"), side("width")) {
            (Some(side), ..) => (Size::Shortest(side), &["shortest_edge"]),
            (None, Some(height), Some(width)) => (Size::Both { height, width }, &["height", "width"]),
            _ => return fields.bad(field, expected),
        };
        match table.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, value)) => fields.bad(
                &format!("{field}.{key}"),
                format!("is not supported beside {} (its value is {value})", known.join(" and ")),
            ),
            None => Ok(size),
        }
    }
}

impl ImageProcessor {
    /// Reads the image processor of a folder: `preprocessor_config.json`, or `image_processor` in `processor_config.json`; what
    /// `transformers` takes for a field that is missing is taken.
    ///
    /// # Errors
    /// When the file is missing or malformed, has a class, field or value that is not supported, or does not make images
    /// square and of one size; each names the file and the field.
    pub fn open(folder: &Path) -> Result<ImageProcessor> {
        let newer = Fields::open_if_there(&hf::file(folder, NEWER.0)?)?.table(NEWER.1)?;
        let fields = if newer.is_empty() { Fields::open(&hf::file(folder, FILE)?)? } else { newer };
        let class = ProcessorType::read(&fields)?;
        let [mean, std] = class.colours();
        let (mean, std) = (colour(&fields, "image_mean", mean)?, colour(&fields, "image_std", std)?);
        let steps = steps(&fields, class, mean)?;
        let pad_last: bool = fields.or(PAD_LAST, false)?;
        let Some([height, width]) = steps.size() else {
            return fields.bad("size", "leaves images of several sizes; `do_center_crop` makes them one");
        };
        if height != width {
            return fields
                .bad("size", format!("images of {width}×{height} pixels are not supported, only square ones"));
        }
        let fit = match steps {
            Steps { pad: Some(_), .. } if pad_last => Fit::Pad,
            squash if squash == Steps::squash(height) => Fit::Squash,
            crop if crop == Steps::crop(height) => Fit::Crop,
            other => Fit::Steps(other),
        };
        let rescale: f64 = fields.or("rescale_factor", 1.0 / 255.0)?;
        let normalize = fields.or("do_normalize", true)?;
        if steps.pad.is_some() && !normalize {
            return fields.bad("do_normalize", "false beside `do_pad` is not supported: the mean is the background");
        }
        let processor = ImageProcessor {
            size: height,
            fit,
            resample: resample(&fields, class)?,
            rescale_factor: if fields.or("do_rescale", true)? { rescale } else { 1.0 },
            image_mean: if normalize { mean } else { [0.0; 3] },
            image_std: if normalize { std } else { [1.0; 3] },
            image_processor_type: Some(class).filter(|class| *class != ProcessorType::of(&steps)),
            processor_class: fields.optional("processor_class")?,
        };
        fields.ignore(&WITHOUT_EFFECT);
        for name in OFF {
            fields.only(name, false)?;
        }
        match processor.validate() {
            Err(Error::Config { field, message }) => fields.bad(&field, message),
            other => other.and_then(|()| fields.finish()),
        }?;
        Ok(processor)
    }

    /// Writes `preprocessor_config.json` to a folder, from which [`ImageProcessor::open`] reads the same and
    /// `transformers.AutoImageProcessor` computes the same; but [`Fit::Pad`] it pads before it resizes.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let text = format!("{:#}\n", self.file());
        write_atomically(&path, |file| file.write_all(text.as_bytes())).map_err(at(&path))
    }

    fn file(&self) -> Value {
        let steps = match self.fit {
            Fit::Squash => Steps::squash(self.size),
            Fit::Crop => Steps::crop(self.size),
            Fit::Steps(steps) => steps,
            Fit::Pad => Steps { pad: Some([0; 3]), ..Steps::squash(self.size) },
        };
        let class = self.image_processor_type.unwrap_or(ProcessorType::of(&steps));
        let mut file = json!({
            "image_processor_type": class.name(),
            "do_convert_rgb": true,
            "do_resize": steps.resize.is_some(),
            "resample": code(self.resample),
            "do_rescale": true,
            "rescale_factor": self.rescale_factor,
            "do_normalize": true,
            "image_mean": self.image_mean,
            "image_std": self.image_std,
        });
        match steps.resize {
            Some(Resize::ShortestEdge(side)) => file["size"] = json!({"shortest_edge": side}),
            Some(Resize::To { height, width }) => file["size"] = json!({"height": height, "width": width}),
            None => {}
        }
        if class.crops() {
            file["do_center_crop"] = json!(steps.crop.is_some());
            if let Some([height, width]) = steps.crop {
                file["crop_size"] = json!({"height": height, "width": width});
            }
        }
        if class == ProcessorType::Llava {
            file["do_pad"] = json!(steps.pad.is_some());
        }
        if self.fit == Fit::Pad {
            file[PAD_LAST] = json!(true);
        }
        if let Some(class) = &self.processor_class {
            file["processor_class"] = json!(class);
        }
        file
    }
}

fn steps(fields: &Fields, class: ProcessorType, mean: [f64; 3]) -> Result<Steps> {
    let resize = match fields.or("do_resize", true)? {
        true => Some(size(fields, class)?),
        false => {
            fields.ignore(&["size", "default_to_square"]);
            None
        }
    };
    let crop = if class.crops() && fields.or("do_center_crop", true)? {
        Some(crop_size(fields)?)
    } else {
        fields.only("do_center_crop", false)?;
        fields.ignore(&["crop_size"]);
        None
    };
    let pad = if class == ProcessorType::Llava && fields.or("do_pad", false)? {
        // The reference rounds towards zero here.
        Some(mean.map(|m| (m * 255.0) as u8))
    } else {
        fields.only("do_pad", false)?;
        None
    };
    Ok(Steps { pad, resize, crop })
}

fn size(fields: &Fields, class: ProcessorType) -> Result<Resize> {
    let size = Size::read(fields, "size", class.size())?;
    // It says how a number is read, which every class knows for itself.
    match size {
        Size::Number(_) => fields.only("default_to_square", !class.crops())?,
        _ => fields.ignore(&["default_to_square"]),
    }
    match size {
        Size::Number(side) | Size::Shortest(side) if class.crops() => {
            within(fields, "size", [side, side])?;
            Ok(Resize::ShortestEdge(side))
        }
        Size::Shortest(_) => fields.bad("size", format!("{} takes {{\"height\": n, \"width\": n}}", class.name())),
        Size::Number(side) => both(fields, side, side),
        Size::Both { height, width } => both(fields, height, width),
    }
}

fn both(fields: &Fields, height: usize, width: usize) -> Result<Resize> {
    within(fields, "size", [height, width])?;
    Ok(Resize::To { height, width })
}

fn crop_size(fields: &Fields) -> Result<[usize; 2]> {
    const FIELD: &str = "crop_size";
    match Size::read(fields, FIELD, Size::square(224))? {
        Size::Number(side) => within(fields, FIELD, [side, side]),
        Size::Both { height, width } => within(fields, FIELD, [height, width]),
        Size::Shortest(_) => fields.bad(FIELD, "expected a number or {\"height\": n, \"width\": n}"),
    }
}

fn within(fields: &Fields, field: &str, sides: [usize; 2]) -> Result<[usize; 2]> {
    match sides.iter().find(|side| !(1..=MAX_SIZE).contains(*side)) {
        Some(side) => fields.bad(field, format!("{side} is not in 1..={MAX_SIZE}")),
        None => Ok(sides),
    }
}

/// Three numbers, or one for all.
fn colour(fields: &Fields, field: &str, default: [f64; 3]) -> Result<[f64; 3]> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number or three of them")]
    enum Colour {
        One(f64),
        Three([f64; 3]),
    }
    Ok(match fields.optional(field)? {
        None => default,
        Some(Colour::One(value)) => [value; 3],
        Some(Colour::Three(values)) => values,
    })
}

/// Pillow's numbers of the filters.
const FILTERS: [Resample; 4] = [Resample::Nearest, Resample::Lanczos, Resample::Bilinear, Resample::Bicubic];

fn code(filter: Resample) -> usize {
    FILTERS.iter().position(|known| *known == filter).unwrap_or_default()
}

fn resample(fields: &Fields, class: ProcessorType) -> Result<Resample> {
    const FIELD: &str = "resample";
    let code: u8 = fields.or(FIELD, class.resample())?;
    match FILTERS.get(usize::from(code)) {
        Some(filter) => Ok(*filter),
        None => {
            let known = "0 (nearest), 1 (Lanczos), 2 (bilinear) and 3 (bicubic) are";
            fields.bad(FIELD, format!("{code} is not supported; {known}"))
        }
    }
}
