#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| redeliver_fuzz::reply(octets));
