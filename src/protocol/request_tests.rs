//! Tests of the request reader: the wire's grammar at every split, Redis's error texts, equality with redis-protocol.

use proptest::prelude::*;

use super::*;

fn words(requests: &Requests, bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
    (0..requests.len()).map(|index| requests.get(index, bytes).iter().map(<[u8]>::to_vec).collect()).collect()
}

/// Feeds `bytes` cut at `cuts`, as the connection does; all requests and the first error.
fn feed(bytes: &[u8], cuts: &[usize]) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let mut reader = RequestReader::new(ReadLimits::default());
    let (mut buffer, mut all) = (Vec::new(), Vec::new());
    let mut from = 0;
    for to in cuts.iter().copied().chain([bytes.len()]) {
        buffer.extend_from_slice(&bytes[from..to.max(from)]);
        from = to.max(from);
        let mut requests = Requests::default();
        let result = reader.decode(&buffer, &mut requests);
        all.extend(words(&requests, &buffer));
        match result {
            Ok(consumed) => drop(buffer.drain(..consumed)),
            Err(error) => return (all, Some(error)),
        }
    }
    (all, None)
}

fn encode(request: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", request.len()).into_bytes();
    for word in request {
        bytes.extend(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

#[test]
fn malformed_input_gets_redis_error_texts() {
    for (input, text) in [
        (&b"*abc\r\n"[..], "Protocol error: invalid multibulk length"),
        (b"*1048577\r\n", "Protocol error: invalid multibulk length"),
        (b"*1\r\n:5\r\n", "Protocol error: expected '$', got ':'"),
        (b"*1\r\n\r\n", "Protocol error: expected '$', got '\r'"),
        (b"*1\r\nGET\r\n", "Protocol error: expected '$', got 'G'"),
        (b"*\r\n", "Protocol error: invalid multibulk length"),
        (b"*+1\r\n", "Protocol error: invalid multibulk length"),
        (b"*01\r\n", "Protocol error: invalid multibulk length"),
        (b"* 1\r\n", "Protocol error: invalid multibulk length"),
        (b"*99999999999999999999\r\n", "Protocol error: invalid multibulk length"),
        (b"*1\r\n$\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$x\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "Protocol error: invalid bulk length"),
        (b"SET \"a\r\n", "Protocol error: unbalanced quotes in request"),
        (b"SET 'a'b\r\n", "Protocol error: unbalanced quotes in request"),
    ] {
        let (_, error) = feed(input, &[]);
        assert_eq!(error.map(|error| error.to_string()).as_deref(), Some(text), "{input:?}");
    }
    let long = vec![b'a'; LINE_BYTES_MAX + 1];
    assert_eq!(feed(&long, &[]).1, Some(ProtocolError::InlineTooBig));
    let longest = [&long[1..], b"\n"].concat();
    assert_eq!(feed(&longest, &[]).1, None);
    let long = [&long[..], b"\r\n"].concat();
    assert_eq!(feed(&long, &[]).1, Some(ProtocolError::InlineTooBig), "also when its end arrived at once");
    let long = [&b"*"[..], &vec![b'1'; LINE_BYTES_MAX + 1]].concat();
    assert_eq!(feed(&long, &[]).1, Some(ProtocolError::CountTooBig));
    let long = [&b"*1\r\n$"[..], &vec![b'1'; LINE_BYTES_MAX + 1]].concat();
    assert_eq!(feed(&long, &[]).1, Some(ProtocolError::LengthTooBig));
}

#[test]
fn before_auth_the_limits_are_small() {
    let mut reader = RequestReader::new(ReadLimits::default());
    reader.set_authenticated(false);
    let mut requests = Requests::default();
    assert_eq!(reader.decode(b"*11\r\n", &mut requests), Err(ProtocolError::CountUnauthenticated));
    let mut reader = RequestReader::new(ReadLimits::default());
    reader.set_authenticated(false);
    assert_eq!(reader.decode(b"*1\r\n$16385\r\n", &mut requests), Err(ProtocolError::LengthUnauthenticated));
}

#[test]
fn empty_requests_are_skipped() {
    let (all, error) = feed(b"*0\r\n\r\n   \r\n*-1\r\nPING\r\n", &[]);
    assert_eq!((all, error), (vec![vec![b"PING".to_vec()]], None));
}

#[test]
fn inline_words_are_split_as_redis_does() {
    let (all, _) = feed(b"SET \"a\\x41\\n b\" 'it''s\r\nGET  'don\\'t' \"\"\r\n", &[]);
    assert!(all.is_empty(), "the first line has unbalanced quotes");
    let (all, error) = feed(b"GET \"a\"\x0b'b'\n\"\\xZZ\\r\\t\\b\\a\\\"\\q\" a\"b\"\n", &[]);
    let expected: [&[&[u8]]; 2] = [&[b"GET", b"a", b"b"], &[b"xZZ\r\t\x08\x07\"q", b"ab"]];
    assert_eq!(error, None);
    assert_eq!(all, expected.map(|request| request.iter().map(|word| word.to_vec()).collect::<Vec<_>>()));
    let (all, _) = feed(b"SET \"a\\x41\\n b\" plain\r\nGET  'don\\'t' \"\"\n", &[]);
    let expected: [&[&[u8]]; 2] = [&[b"SET", b"aA\n b", b"plain"], &[b"GET", b"don't", b""]];
    assert_eq!(all, expected.map(|request| request.iter().map(|word| word.to_vec()).collect::<Vec<_>>()));
}

#[test]
fn an_announced_length_allocates_nothing_and_a_long_word_is_not_scanned_again() {
    let mut reader = RequestReader::new(ReadLimits::default());
    let mut requests = Requests::default();
    let header = b"*2\r\n$3\r\nSET\r\n$536870912\r\n";
    assert_eq!(reader.decode(header, &mut requests), Ok(0));
    assert_eq!(reader.wanted(), header.len() + 536_870_912 + 2);
    assert!(requests.ranges.capacity() < 64 && reader.partial.capacity() < 64);
    // Every later packet resumes at the word: nothing before it is looked at.
    let mut garbled = header.to_vec();
    garbled[..header.len()].fill(b'?');
    assert_eq!(reader.decode(&garbled, &mut requests), Ok(0));
}

#[test]
fn the_requests_before_a_malformed_one_are_kept() {
    let (all, error) = feed(b"*1\r\n$4\r\nPING\r\nECHO 'a\r\n", &[]);
    assert_eq!((all, error), (vec![vec![b"PING".to_vec()]], Some(ProtocolError::UnbalancedQuotes)));
}

#[test]
fn a_request_beyond_the_reach_of_an_offset_is_refused() {
    let mut reader = RequestReader::new(ReadLimits { word_bytes_max: u64::MAX, ..ReadLimits::default() });
    let bytes = format!("*2\r\n$3\r\nSET\r\n${REQUEST_BYTES_MAX}\r\n");
    assert_eq!(reader.decode(bytes.as_bytes(), &mut Requests::default()), Err(ProtocolError::Length));
}

#[test]
fn a_large_word_in_small_packets_is_decoded_in_linear_time() {
    const WORD_BYTES: usize = 100_000_000;
    const PACKET_BYTES: usize = 16 << 10;
    let mut bytes = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${WORD_BYTES}\r\n").into_bytes();
    let header = bytes.len();
    // Zero pages that no read touches cost nothing: the test would be slow only if the reader looked at the word.
    bytes.resize(header + WORD_BYTES, 0);
    bytes.extend(b"\r\n");
    let mut reader = RequestReader::new(ReadLimits::default());
    let mut requests = Requests::default();
    let start = std::time::Instant::now();
    for arrived in (PACKET_BYTES..bytes.len()).step_by(PACKET_BYTES) {
        assert_eq!(reader.decode(&bytes[..arrived], &mut requests), Ok(0));
    }
    assert_eq!(reader.decode(&bytes, &mut requests), Ok(bytes.len()));
    // 6,104 calls; scanning what has arrived at each of them would be 305 GB.
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(requests.get(0, &bytes)[2].len(), WORD_BYTES);
}

#[test]
fn many_words_in_small_packets_are_each_looked_at_once() {
    let bytes = [&b"*1048576\r\n"[..], &b"$1\r\nx\r\n".repeat(WORD_COUNT_MAX)].concat();
    let mut reader = RequestReader::new(ReadLimits::default());
    let mut requests = Requests::default();
    for arrived in (0..bytes.len()).step_by(16 << 10) {
        assert_eq!(reader.decode(&bytes[..arrived], &mut requests), Ok(0));
    }
    assert_eq!(reader.decode(&bytes, &mut requests), Ok(bytes.len()));
    assert_eq!(requests.get(0, &bytes).len(), WORD_COUNT_MAX);
    requests.clear();
    let kept = requests.ranges.capacity().max(reader.partial.capacity());
    assert!(kept <= KEPT_WORD_COUNT_MAX, "room for {kept} words is kept");
}

#[test]
fn a_call_decodes_no_more_requests_than_its_limit() {
    let limits = ReadLimits { requests_max: 2, ..ReadLimits::default() };
    let mut reader = RequestReader::new(limits);
    let bytes = b"PING\r\n*1\r\n$4\r\nPING\r\nPING\r\n";
    let mut requests = Requests::default();
    let consumed = reader.decode(bytes, &mut requests).expect("well-formed");
    assert_eq!((requests.len(), consumed), (2, requests.end(1)));
    requests.clear();
    assert_eq!(reader.decode(&bytes[consumed..], &mut requests), Ok(6));
    assert_eq!(requests.len(), 1);
}

fn request() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6)
}

/// Requests of every form: arrays, inline words with and without quotes, empty ones, long ones.
fn mixed_stream() -> Vec<u8> {
    let word = |word: &str| word.as_bytes().to_vec();
    let mut stream = encode(&[word("SET"), word("key"), vec![b'\n'; 150]]);
    stream.extend(b"PING\r\n*0\r\n*-1\r\n\r\nSET a \"b\\x41 c\"\n  GET 'x y' \r\n");
    stream.extend(encode(&[word("ECHO"), Vec::new()]));
    stream
}

#[test]
fn the_stream_may_be_cut_anywhere() {
    let stream = mixed_stream();
    let (whole, error) = feed(&stream, &[]);
    assert_eq!((whole.len(), error), (5, None));
    for first in 0..=stream.len() {
        assert_eq!(feed(&stream, &[first]), (whole.clone(), None), "cut at {first}");
        for second in (first..=stream.len()).step_by(7) {
            assert_eq!(feed(&stream, &[first, second]), (whole.clone(), None), "cut at {first} and {second}");
        }
    }
    let every: Vec<usize> = (0..=stream.len()).collect();
    assert_eq!(feed(&stream, &every), (whole, None), "byte by byte");
}

#[test]
fn malformed_streams_fail_alike_however_they_are_cut() {
    for bytes in
        [&b"PING\r\n*1\r\n:5\r\n"[..], b"PING\r\n*x\r\n", b"*2\r\n$1\r\na\r\n$-5\r\n", b"GET 'a\r\n", b"*1\r\n\r\n"]
    {
        let whole = feed(bytes, &[]);
        assert!(whole.1.is_some());
        for cut in 0..=bytes.len() {
            assert_eq!(feed(bytes, &[cut]), whole, "{bytes:?} cut at {cut}");
        }
    }
}

proptest! {
    #[test]
    fn any_split_of_the_stream_gives_the_same_requests(
        requests in prop::collection::vec(request(), 1..6),
        cuts in prop::collection::vec(0usize..400, 0..12),
    ) {
        let bytes: Vec<u8> = requests.iter().flat_map(|request| encode(request)).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(feed(&bytes, &cuts), (requests, None));
    }

    #[test]
    fn requests_equal_what_the_redis_protocol_crate_decodes(requests in prop::collection::vec(request(), 1..4)) {
        let bytes: Vec<u8> = requests.iter().flat_map(|request| encode(request)).collect();
        let mut rest = bytes::BytesMut::from(&bytes[..]);
        let mut expected = Vec::new();
        while let Some((frame, _, _)) = redis_protocol::resp2::decode::decode_bytes_mut(&mut rest).expect("well-formed") {
            let redis_protocol::resp2::types::BytesFrame::Array(items) = frame else { panic!("not an array") };
            let word = |item: redis_protocol::resp2::types::BytesFrame| match item {
                redis_protocol::resp2::types::BytesFrame::BulkString(bytes) => bytes.to_vec(),
                other => panic!("not a bulk string: {other:?}"),
            };
            expected.push(items.into_iter().map(word).collect::<Vec<_>>());
        }
        prop_assert_eq!(feed(&bytes, &[]), (expected, None));
    }

    #[test]
    fn no_bytes_panic_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
        let cut = cut.min(bytes.len());
        prop_assert_eq!(feed(&bytes, &[cut]), feed(&bytes, &[]));
    }
}
