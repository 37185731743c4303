//! Makes inputs of seeds: what libFuzzer does too, without its knowledge of what an input reaches.

use std::ops::Range;

use fastrand::Rng;

/// Longer inputs find no more, and take longer.
const MAX_BYTES: usize = 4_096;

/// What means something to one of the readers, or used to go wrong in others'.
const TOKENS: [&[u8]; 48] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b":",
    b",",
    b"=",
    b" ",
    b"\n",
    b"\r",
    b"\t",
    b"/",
    b"#",
    b"+",
    b"$",
    b"{a}",
    b"{a...}",
    b"$share/g/",
    b"*",
    b"@",
    b"-",
    b"0",
    b"1e999",
    b"-0.0",
    b"9223372036854775808",
    b"NaN",
    b"null",
    b"true",
    b"\\u0000",
    b"\\ud800",
    b"\\\n",
    b"\"\"",
    b"\xff",
    b"\xc3",
    b"\xe2\x80\xa8",
    b"\0",
    b"site",
    b"time",
    b"_x",
    b"&a",
    b"*a",
    b"!!int",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff\x0f",
    b"\xdd\xff\xff\xff\xff",
    b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
];

/// Numbers at which lengths and signs go wrong.
const EDGES: [u8; 8] = [0, 1, 0x1f, 0x7f, 0x80, 0x9f, 0xfe, 0xff];

/// One input: a seed with one to eight changes.
pub(crate) fn mutate(seeds: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let mut bytes = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..1 << random.u8(..4) {
        change(&mut bytes, seeds, random);
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Rng) {
    let place = random.usize(..=bytes.len());
    let range = part(bytes, random);
    match random.u8(..10) {
        0 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 1 << random.u8(..8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = random.u8(..);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = EDGES[random.usize(..EDGES.len())];
            }
        }
        3 => drop(bytes.drain(range)),
        4 => bytes.truncate(place),
        5 => insert(bytes, place, &[random.u8(..)]),
        6 => {
            let copy = bytes[range].to_vec();
            insert(bytes, place, &copy);
        }
        // Often enough to get as deep as any reader goes.
        7 => {
            let copy = bytes[range].repeat(1 << random.u8(1..9));
            insert(bytes, place, &copy[..copy.len().min(MAX_BYTES)]);
        }
        8 => {
            let other = &seeds[random.usize(..seeds.len())];
            insert(bytes, place, &other[part(other, random)]);
        }
        _ => insert(bytes, place, TOKENS[random.usize(..TOKENS.len())]),
    }
    bytes.truncate(MAX_BYTES);
}

/// A part of the bytes: more often a short one.
fn part(bytes: &[u8], random: &mut Rng) -> Range<usize> {
    let start = random.usize(..=bytes.len());
    let longest = bytes.len() - start;
    let longest = if random.bool() { longest.min(8) } else { longest };
    start..start + random.usize(..=longest)
}

fn insert(bytes: &mut Vec<u8>, place: usize, more: &[u8]) {
    bytes.splice(place..place, more.iter().copied());
}
