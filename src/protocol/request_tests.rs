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
