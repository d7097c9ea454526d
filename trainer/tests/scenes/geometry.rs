//! Splits, placement and pixels.

use std::collections::HashSet;

use lenslet::data::scenes::{Object, PairSet, Scenes, Split, World};

use crate::plain::{HELD_OUT, inside, name, uncovered};
use crate::{SCENES, WORLDS};

#[test]
fn the_same_numbers_give_the_same_scene_and_pixels() {
    for split in Split::ALL {
        for index in 0..20 {
            assert_eq!(SCENES.scene(split, index), SCENES.scene(split, index));
            assert_eq!(SCENES.image(split, index), SCENES.scene(split, index).render(48));
            assert_ne!(SCENES.scene(split, index), Scenes { seed: 2025, ..SCENES }.scene(split, index));
        }
    }
}

#[test]
fn no_scene_occurs_twice() {
    let mut seen = HashSet::new();
    for split in Split::ALL {
        for index in 0..10_000 {
            let scene = SCENES.scene(split, index);
            let places: Vec<_> = scene.objects.iter().map(|o| (o.pair, o.x.to_bits(), o.y.to_bits())).collect();
            assert!(seen.insert(places), "{split:?} {index}");
        }
    }
}

#[test]
fn only_compositional_scenes_show_held_out_pairs_and_all_of_them_do() {
    assert_eq!(
        PairSet::HELD_OUT.iter().map(|pair| pair.to_string()).collect::<HashSet<_>>(),
        HELD_OUT.map(String::from).into()
    );
    for (scenes, split) in WORLDS.iter().flat_map(|scenes| Split::ALL.map(|split| (scenes, split))) {
        for index in 0..5_000 {
            let scene = scenes.scene(split, index);
            let held_out = scene.objects.iter().any(|object| HELD_OUT.contains(&name(object).as_str()));
            assert_eq!(held_out, split == Split::Compositional, "{split:?} {index}");
            let small = |object: &Object| (object.pair.colour as usize) < 4 && (object.pair.shape as usize) < 4;
            assert!(scenes.world == World::Full || scene.objects.iter().all(small), "{split:?} {index}");
        }
    }
}

#[test]
fn object_counts_and_overlaps_have_their_share() {
    let n = 20_000;
    let near = |count: u32, total: f64, share: f64| {
        let sigma = (total * share * (1.0 - share)).sqrt();
        assert!((f64::from(count) - total * share).abs() <= 4.0 * sigma, "{count} of {total}, expected share {share}");
    };
    let shares = [([0.0, 0.15, 0.30, 0.30, 0.25], 0.5), ([0.0, 0.25, 0.40, 0.35, 0.0], 0.2)];
    for (scenes, (shares, overlap)) in WORLDS.iter().zip(shares) {
        let (mut counts, mut several, mut overlapping) = ([0u32; 5], 0, 0);
        for index in 0..n {
            let scene = scenes.scene(Split::Train, index);
            counts[scene.objects.len()] += 1;
            several += u32::from(scene.objects.len() > 1);
            overlapping += u32::from((1..scene.objects.len()).any(|b| (0..b).any(|a| scene.overlap(a, b))));
        }
        for (count, share) in counts.into_iter().zip(shares) {
            near(count, n as f64, share);
        }
        near(overlapping, f64::from(several), overlap);
    }
}

#[test]
fn objects_lie_inside_apart_or_plainly_overlapping() {
    for (scenes, split) in WORLDS.iter().flat_map(|scenes| Split::ALL.map(|split| (scenes, split))) {
        let radii = if scenes.world == World::Full { 0.11..0.16 } else { 0.15..0.20 };
        for index in 0..2_000 {
            let scene = scenes.scene(split, index);
            let mut overlaps = 0;
            for (i, front) in scene.objects.iter().enumerate() {
                assert!(radii.contains(&front.radius));
                assert!([front.x, front.y].iter().all(|v| (front.reach()..1.0 - front.reach()).contains(v)));
                for back in &scene.objects[..i] {
                    assert_ne!(back.pair, front.pair);
                    let visible = uncovered(back, front);
                    if scene.overlap(i, scene.find(back.pair).expect("present")) {
                        overlaps += 1;
                        assert!(
                            (0.45..0.96).contains(&visible),
                            "{split:?} {index}: {visible} of the back one visible"
                        );
                    } else {
                        assert_eq!(visible, 1.0, "{split:?} {index}");
                    }
                }
            }
            assert!(overlaps <= 1, "{split:?} {index}");
        }
    }
}

/// Away from edges, a pixel is the colour of the foremost shape there or of the background, but for noise.
#[test]
fn pixels_show_the_foremost_shape() {
    // The noise is a sum of four uniform values, so it never exceeds 510 / 147.8 deviations of 0.02 x 255 = 5.1, which
    // is 17.6; rounding adds one half.
    const NOISE: f64 = 18.2;
    let mut shown_in_all = 0;
    for (size, index) in [(48, 300), (96, 60)].into_iter().flat_map(|(size, n)| (0..n).map(move |index| (size, index)))
    {
        let scene = SCENES.scene(Split::Compositional, index);
        let image = scene.render(size);
        assert_eq!(image.dimensions(), (size, size));
        let (mut shown, mut empty, mut squares) = (0, 0, 0.0);
        for (px, py, pixel) in image.enumerate_pixels() {
            let (x, y) = ((f64::from(px) + 0.5) / f64::from(size), (f64::from(py) + 0.5) / f64::from(size));
            let around: HashSet<_> = (0..48)
                .map(|i| {
                    // The rim (0.018) and half a pixel, or what a corner's distance falls short of, stay within this.
                    let (angle, reach) = (f64::from(i) * std::f64::consts::TAU / 48.0, 0.019 + 0.75 / f64::from(size));
                    let (x, y) = (x + reach * angle.cos(), y + reach * angle.sin());
                    scene.objects.iter().rposition(|object| inside(object, x, y))
                })
                .chain([scene.objects.iter().rposition(|object| inside(object, x, y))])
                .collect();
            let [foremost] = around.into_iter().collect::<Vec<_>>()[..] else {
                continue;
            };
            let expected = foremost.map_or([scene.background; 3], |i| scene.objects[i].rgb);
            for (value, expected) in pixel.0.iter().zip(expected) {
                let off = f64::from(*value) - 255.0 * f64::from(expected);
                assert!(off.abs() < NOISE, "scene {index} pixel {px} {py}: {pixel:?}, expected {expected:?}");
                if foremost.is_none() {
                    squares += off * off;
                }
            }
            *if foremost.is_some() { &mut shown } else { &mut empty } += 1;
        }
        // The rounding to whole bytes adds 1/12 to the variance. 3 x 1000 values or more: 4 sigma of it is below 11 %.
        let (variance, expected) = (squares / f64::from(3 * empty), 5.1 * 5.1 + 1.0 / 12.0);
        assert!(empty > 1000, "scene {index}");
        shown_in_all += shown;
        assert!(
            (variance / expected - 1.0).abs() < 0.11,
            "scene {index}: noise variance {variance}, expected {expected}"
        );
    }
    assert!(shown_in_all > 10_000, "{shown_in_all}");
}
