//! Image processors of other models: the reference's bytes and values, and files that are refused.

use engine::{DType, Device};
use image::{Rgb, RgbImage};
use model::{Fit, ImageProcessor, ProcessorType, Resample, Resize, Steps};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

/// What tests/fixtures/images.py makes images of.
fn pattern(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([0, 1, 2]
            .map(|c| (((x * 37 + y * 91 + c * 53 + (x * x * 7 + y * y * 13) * (c + 1)) ^ (x * y * 5)) & 255) as u8))
    })
}

fn folder(config: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("preprocessor_config.json"), config.to_string()).unwrap();
    folder
}

fn read(config: &Value) -> model::Result<ImageProcessor> {
    ImageProcessor::open(folder(config).path())
}

fn written(processor: &ImageProcessor) -> ImageProcessor {
    let folder = tempfile::tempdir().unwrap();
    processor.save(folder.path()).unwrap();
    ImageProcessor::open(folder.path()).unwrap()
}

#[test]
fn bytes_and_values_equal_those_of_the_reference() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(fixtures.join("images.json")).unwrap()).unwrap();
    let file = std::fs::read(fixtures.join("images.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    assert_eq!(cases.len(), 154);
    for (i, case) in cases.iter().enumerate() {
        let processor = read(&case["config"]).unwrap();
        let side = |name: &str| case[name].as_u64().unwrap() as u32;
        let image = pattern(side("width"), side("height"));
        let bytes = processor.bytes([&image]).unwrap();
        let expected = tensors.tensor(&format!("{i}.bytes")).unwrap();
        assert_eq!(expected.shape(), [processor.size, processor.size, 3], "{case}");
        assert!(bytes == expected.data(), "{case}");
        let values = processor.tensor(&bytes, &Device::cpu(), DType::F32).unwrap().to_vec::<f32>().unwrap();
        let expected = tensors.tensor(&format!("{i}.pixels")).unwrap();
        for (value, expected) in values.iter().zip(expected.data().chunks(4)) {
            let expected = f32::from_le_bytes(expected.try_into().unwrap());
            // Within 1e-6 of values about 1.
            assert!((value - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{case}: {value}, {expected}");
        }
        assert_eq!(written(&processor), processor, "{case}");
    }
}

#[test]
fn own_fits_survive_being_written() {
    for (fit, class) in
        [(Fit::Squash, "SiglipImageProcessor"), (Fit::Crop, "CLIPImageProcessor"), (Fit::Pad, "LlavaImageProcessor")]
    {
        let processor = ImageProcessor { size: 10, fit, image_mean: [0.35; 3], ..ImageProcessor::default() };
        assert_eq!(written(&processor), processor);
        let folder = tempfile::tempdir().unwrap();
        processor.save(folder.path()).unwrap();
        let file = std::fs::read_to_string(folder.path().join("preprocessor_config.json")).unwrap();
        assert!(file.contains(class), "{file}");
    }
}

#[test]
fn classes_bring_their_own_defaults() {
    for (class, size, fit, resample, mean) in [
        ("CLIPImageProcessorFast", 224, Fit::Crop, Resample::Bicubic, 0.48145466),
        ("SiglipImageProcessor", 224, Fit::Squash, Resample::Bicubic, 0.5),
        ("ViTImageProcessor", 224, Fit::Squash, Resample::Bilinear, 0.5),
        ("BlipImageProcessor", 384, Fit::Squash, Resample::Bicubic, 0.48145466),
    ] {
        let processor = read(&json!({"image_processor_type": class, "processor_class": "AnyProcessor"})).unwrap();
        assert_eq!((processor.size, processor.fit, processor.resample), (size, fit, resample), "{class}");
        assert_eq!((processor.image_mean[0], processor.rescale_factor), (mean, 1.0 / 255.0), "{class}");
        assert_eq!(written(&processor), processor);
    }
    let vit = read(&json!({"image_processor_type": "ViTImageProcessorFast"})).unwrap();
    assert_eq!(vit.image_processor_type, Some(ProcessorType::Vit));
    let old = read(&json!({"feature_extractor_type": "CLIPFeatureExtractor", "size": 8, "crop_size": 8})).unwrap();
    assert_eq!((old.size, old.fit), (8, Fit::Crop));
}

#[test]
fn fields_of_fast_processors_change_nothing() {
    let plain = json!({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}});
    let expected = read(&plain).unwrap();
    let fast = json!({"default_to_square": true, "use_square_size": false, "disable_grouping": null, "device": "cuda", "data_format": "channels_first",
        "input_data_format": "none", "return_tensors": "pt", "crop_to_patches": false, "pad_size": {"height": 9, "width": 9}, "do_pad": false,
        "image_seq_length": 576, "size": {"shortest_edge": 8, "longest_edge": null}});
    for class in ["CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor", "CLIPImageProcessor"] {
        let mut config = plain.clone();
        config.as_object_mut().unwrap().extend(fast.as_object().unwrap().clone());
        config["image_processor_type"] = json!(class);
        assert_eq!(read(&config).unwrap(), expected, "{class}");
    }
    // Newer versions keep it in the processor's file, which counts before the older one.
    let folder = folder(&json!({"image_processor_type": "DonutImageProcessor"}));
    let newer = json!({"processor_class": "LlavaProcessor", "image_processor": plain});
    std::fs::write(folder.path().join("processor_config.json"), newer.to_string()).unwrap();
    assert_eq!(ImageProcessor::open(folder.path()).unwrap(), expected);
    let bad = json!({"image_processor": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8, "longest_edge": 9}}});
    std::fs::write(folder.path().join("processor_config.json"), bad.to_string()).unwrap();
    let error = ImageProcessor::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("processor_config.json: field `image_processor.size.longest_edge`"), "{error}");
}

#[test]
fn what_is_not_supported_is_named() {
    let clip = |field: &str, value: Value| {
        let mut config = json!({"image_processor_type": "CLIPImageProcessor"});
        config[field] = value;
        config
    };
    let siglip = |field: &str, value: Value| {
        let mut config = clip(field, value);
        config["image_processor_type"] = json!("SiglipImageProcessor");
        config
    };
    for (config, expected) in [
        (json!({}), "`image_processor_type`: is missing; it is one of CLIPImageProcessor, "),
        (clip("image_processor_type", json!("DonutImageProcessor")), "`DonutImageProcessor` is not supported; CLIP"),
        (clip("do_flip_channel_order", json!(true)), "`do_flip_channel_order`: true is not supported"),
        (clip("resample", json!(5)), "`resample`: 5 is not supported; 0 (nearest)"),
        (clip("size", json!("224")), "`size`: expected a number, {\"shortest_edge\": n}"),
        (clip("size", json!({"shortest_edge": 0})), "`size`: 0 is not in 1..=4096"),
        (clip("size", json!(1_000_000_000_000u64)), "`size`: 1000000000000 is not in"),
        (clip("crop_size", json!({"height": 8, "width": 9})), "images of 9×8 pixels are not supported"),
        (clip("crop_size", json!({"shortest_edge": 8})), "`crop_size`: expected a number or"),
        (
            clip("size", json!({"shortest_edge": 8, "longest_edge": 9})),
            "`size.longest_edge`: is not supported beside shortest_edge (its value is 9)",
        ),
        (clip("size", json!({"height": 8, "width": 8, "max_pixels": 9})), "`size.max_pixels`: is not supported"),
        (clip("crop_size", json!({"height": 8, "width": 8, "depth": 3})), "`crop_size.depth`: is not supported"),
        (clip("use_square_size", json!(true)), "`use_square_size`: true"),
        (clip("crop_to_patches", json!(true)), "`crop_to_patches`: true"),
        (clip("pad_to_multiple", json!(8)), "`pad_to_multiple`: is not supported"),
        (
            json!({"image_processor_type": "CLIPImageProcessor", "size": 8, "crop_size": 8, "default_to_square": true}),
            "`default_to_square`: true is not supported, only false",
        ),
        (clip("do_center_crop", json!(false)), "leaves images of several sizes"),
        (clip("do_pad", json!(true)), "`do_pad`: true is not supported"),
        (clip("image_std", json!([0.1, 0.0, 0.1])), "`image_std`: must be finite numbers above 0"),
        (clip("image_mean", json!([0.1, 0.0])), "`image_mean`: expected a number or three"),
        (clip("rescale_factor", json!(0)), "`rescale_factor`: must be"),
        (siglip("size", json!({"shortest_edge": 9})), "SiglipImageProcessor takes {\"height\": n"),
        (siglip("do_center_crop", json!(true)), "`do_center_crop`: true is not supported"),
    ] {
        let error = read(&config).unwrap_err().to_string();
        assert!(error.contains("preprocessor_config.json: field ") && error.contains(expected), "{error}");
    }
}

#[test]
fn thin_images_take_no_more_than_others() {
    let steps = Steps { pad: None, resize: Some(Resize::ShortestEdge(4096)), crop: Some([8, 8]) };
    for fit in [Fit::Crop, Fit::Steps(steps), Fit::Steps(Steps { pad: Some([0; 3]), ..steps })] {
        let processor = ImageProcessor { size: 8, fit, ..ImageProcessor::default() };
        processor.validate().unwrap();
        assert_eq!(processor.square(&RgbImage::new(16_384, 1)).unwrap().dimensions(), (8, 8));
        assert_eq!(processor.square(&RgbImage::new(1, 16_384)).unwrap().dimensions(), (8, 8));
    }
}

const FIELDS: [&str; 11] = [
    "image_processor_type",
    "size",
    "crop_size",
    "do_resize",
    "do_center_crop",
    "do_pad",
    "do_normalize",
    "image_mean",
    "image_std",
    "rescale_factor",
    "resample",
];

fn any_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        (-2i64..40).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from)
    ];
    let side = || (0u64..60).prop_map(Value::from);
    prop_oneof![
        number.clone(),
        any::<bool>().prop_map(Value::from),
        side().prop_map(|side| json!({"shortest_edge": side})),
        (side(), side()).prop_map(|(height, width)| json!({"height": height, "width": width})),
        prop::collection::vec(number, 2..4).prop_map(Value::from),
        Just(Value::Null),
        prop::sample::select(vec!["LlavaImageProcessor", "ViTImageProcessorFast", "x"]).prop_map(Value::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a file says, it is refused by name, or images of its size come out.
    #[test]
    fn no_file_makes_it_panic(
        class in prop::sample::select(vec!["CLIPImageProcessor", "LlavaImageProcessor", "BlipImageProcessor"]),
        fields in prop::collection::btree_map(prop::sample::select(FIELDS.to_vec()), any_value(), 0..5),
        (width, height) in (1u32..50, 1u32..50),
    ) {
        let mut config = json!({"image_processor_type": class, "size": 20, "crop_size": 20});
        for (name, value) in fields {
            config[name] = value;
        }
        match read(&config) {
            Err(error) => prop_assert!(error.to_string().contains("preprocessor_config.json: field `"), "{error}"),
            Ok(processor) => {
                let bytes = processor.bytes([&pattern(width, height)]).unwrap();
                prop_assert_eq!(bytes.len(), 3 * processor.size * processor.size);
                let again = written(&processor);
                prop_assert_eq!((again.size, again.fit), (processor.size, processor.fit));
            }
        }
    }
}
