//! A zip archive of stored entries (APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16): the same
//! entries give the same octets.

use chrono::{DateTime, Datelike, Timelike, Utc};

/// Entries as they are, each dated `date`, which is cut to two seconds and to the years that
/// the format knows. `None` beyond 4 GiB.
pub(super) fn stored(entries: &[(String, Vec<u8>)], date: DateTime<Utc>) -> Option<Vec<u8>> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let offset = u32::try_from(archive.len()).ok()?;
        let facts = facts(name, content, date)?;
        archive.extend_from_slice(b"PK\x03\x04\x0a\0");
        archive.extend_from_slice(&facts);
        archive.extend_from_slice(name.as_bytes());
        archive.extend_from_slice(content);
        // Made on Unix, by version 1.0; a plain file that all may read.
        directory.extend_from_slice(b"PK\x01\x02\x0a\x03\x0a\0");
        directory.extend_from_slice(&facts);
        directory.extend_from_slice(&[0; 6]);
        directory.extend_from_slice(&(0o100_644_u32 << 16).to_le_bytes());
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let number = u16::try_from(entries.len()).ok()?.to_le_bytes();
    let (size, offset) = (u32::try_from(directory.len()).ok()?, u32::try_from(archive.len()).ok()?);
    archive.append(&mut directory);
    archive.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    archive.extend_from_slice(&[number, number].concat());
    archive.extend_from_slice(&[size.to_le_bytes(), offset.to_le_bytes()].concat());
    archive.extend_from_slice(&[0; 2]);
    Some(archive)
}

/// What both headers of an entry say, from the flags to the length of the extra field.
fn facts(name: &str, content: &[u8], date: DateTime<Utc>) -> Option<Vec<u8>> {
    let (time, day) = dos_time(date);
    let size = u32::try_from(content.len()).ok()?.to_le_bytes();
    let mut facts = vec![0; 4];
    facts.extend_from_slice(&[time.to_le_bytes(), day.to_le_bytes()].concat());
    facts.extend_from_slice(&crc32(content).to_le_bytes());
    facts.extend_from_slice(&[size, size].concat());
    facts.extend_from_slice(&u16::try_from(name.len()).ok()?.to_le_bytes());
    facts.extend_from_slice(&[0; 2]);
    Some(facts)
}

/// Time and date as MS-DOS counts them (section 4.4.6), here in UTC.
fn dos_time(date: DateTime<Utc>) -> (u16, u16) {
    let year = date.year().clamp(1980, 2107) - 1980;
    let day = year.cast_unsigned() << 9 | date.month() << 5 | date.day();
    let time = date.hour() << 11 | date.minute() << 5 | (date.second() / 2);
    let small = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    (small(time), small(day))
}

/// The checksum of ISO 3309, as section 4.4.7 asks for.
fn crc32(octets: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !octets.iter().fold(u32::MAX, |crc, octet| crc >> 8 ^ TABLE[usize::from(crc.to_le_bytes()[0] ^ octet)])
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut number = 0;
    while number < 256 {
        let mut value = number;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ 0xEDB8_8320 } else { value >> 1 };
            bit += 1;
        }
        table[number as usize] = value;
        number += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!([crc32(b""), crc32(b"123456789")], [0, 0xCBF4_3926]);
    }

    #[test]
    fn an_archive_is_what_other_tools_read() {
        let date = DateTime::from_timestamp(1_700_000_001, 0).expect("in range");
        let archive = stored(&[("a.txt".into(), b"hello".to_vec())], date).expect("small");
        let expected: &[&[u8]] = &[
            b"PK\x03\x04\x0a\0\0\0\0\0\xaa\xb1\x6e\x57\x86\xa6\x10\x36\x05\0\0\0\x05\0\0\0\x05\0\0\0a.txthello",
            b"PK\x01\x02\x0a\x03\x0a\0\0\0\0\0\xaa\xb1\x6e\x57\x86\xa6\x10\x36\x05\0\0\0\x05\0\0\0\x05\0\0\0",
            b"\0\0\0\0\0\0\0\0\xa4\x81\0\0\0\0a.txt",
            b"PK\x05\x06\0\0\0\0\x01\0\x01\0\x33\0\0\0\x28\0\0\0\0\0",
        ];
        assert_eq!(archive, expected.concat());
    }
}
