use super::*;
use crate::artifact::{Artifact, SharedSecret, TrustedKeys};
use futures::stream::{self, StreamExt as _};
use std::time::Duration;
use tokio::time::advance;

const PATIENCE: Duration = Duration::from_secs(5);

fn key(n: u8) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes([n; 32])
}

fn format() -> FrameFormat {
    FrameFormat::new(None, 1000)
}

async fn frame_of(n: u8, payload: usize) -> Vec<u8> {
    let format = FrameFormat::new(None, u64::MAX);
    let artifact = Artifact::new(vec![n; payload]);
    let (head, payload) = format.encode(&key(n), &artifact).await.unwrap();
    [head, payload].concat()
}

fn entry(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_le_bytes()[..], frame].concat()
}

/// A body that comes in these parts.
fn received(parts: Vec<Result<Bytes, RequestError>>) -> Pieces {
    Pieces::new(stream::iter(parts).boxed(), PATIENCE)
}

/// What each key from 0 on is answered with, and how the reading ends.
async fn read_from(
    mut body: Pieces,
    keys: u8,
    format: &FrameFormat,
) -> (Vec<Option<BatchAnswer>>, Result<bool, RequestError>) {
    let batch = Batch::new((0..keys).map(key).collect());
    let asked = batch.unanswered();
    let stop_at = Instant::now() + PATIENCE;
    let ended = receive(&mut body, &batch, asked, format, stop_at).await;
    let answers = batch.answers().into_iter().map(|(_, answer)| answer);
    (answers.collect(), ended)
}

async fn read(bytes: &[u8], keys: u8) -> (Vec<Option<BatchAnswer>>, Result<bool, RequestError>) {
    let body = received(vec![Ok(Bytes::copy_from_slice(bytes))]);
    read_from(body, keys, &format()).await
}

fn is_hit(answer: &Option<BatchAnswer>, n: u8) -> bool {
    let Some(BatchAnswer::Fetched(Fetched::Hit(found))) = answer else {
        return false;
    };
    found.payload().iter().all(|&byte| byte == n)
}

fn corrupt(answer: &Option<BatchAnswer>) -> Option<FrameError> {
    match answer {
        Some(BatchAnswer::Fetched(Fetched::Corrupt(reason))) => Some(*reason),
        _ => None,
    }
}

#[test]
fn a_request_is_its_keys_one_after_the_other() {
    let keys = [(7, key(1)), (9, key(2))];
    assert_eq!(body(&keys), [[1; 32], [2; 32]].concat());
}

#[tokio::test]
async fn an_answer_begins_with_its_magic() {
    for (bytes, begins_so) in [
        (&MAGIC[..], true),
        (b"\x89pcb\r\n\x1a\n\0\0\0\0", true),
        (b"", false),
        (b"ok\n", false),
        (b"<!doctype html>", false),
        (b"\x89pcb\n\x1a\n\n", false),
    ] {
        let mut body = received(vec![Ok(Bytes::copy_from_slice(bytes))]);
        assert_eq!(begins(&mut body).await.unwrap(), begins_so, "{bytes:?}");
    }
}

/// The answer to five keys: an entry, none, an entry, one that is not sent, an entry.
async fn whole() -> Vec<u8> {
    [
        entry(&frame_of(0, 100).await),
        NO_ENTRY.to_le_bytes().to_vec(),
        entry(&frame_of(2, 1000).await),
        NOT_SENT.to_le_bytes().to_vec(),
        entry(&frame_of(4, 0).await),
    ]
    .concat()
}

#[tokio::test]
async fn an_answer_is_read_however_it_is_cut_into_parts() {
    let whole = whole().await;
    for length in [1, 3, 7, 144, 1000, usize::MAX] {
        let parts = whole
            .chunks(length)
            .map(|part| Ok(Bytes::copy_from_slice(part)));
        let (answers, ended) = read_from(received(parts.collect()), 5, &format()).await;
        assert!(ended.unwrap());
        assert!(
            [0, 2, 4]
                .iter()
                .all(|&n| is_hit(&answers[usize::from(n)], n))
        );
        assert!(matches!(
            answers[1],
            Some(BatchAnswer::Fetched(Fetched::Miss))
        ));
        assert!(answers[3].is_none());
    }
}

/// The promise of a torn answer: what came whole holds, and the rest is an error and not a miss.
#[tokio::test]
async fn an_answer_that_ends_early_answers_what_came_whole() {
    let whole = whole().await;
    for length in 0..whole.len() {
        let (answers, ended) = read(&whole[..length], 5).await;
        let ended = ended.unwrap_err();
        assert_eq!(ended.kind, StoreErrorKind::Protocol, "{length}: {ended}");
        for (n, answer) in (0..).zip(&answers) {
            let is_right = match (n, answer) {
                (_, None) => true,
                (1, Some(BatchAnswer::Fetched(Fetched::Miss))) => true,
                (_, answer) => is_hit(answer, n),
            };
            assert!(is_right, "{length}: {answer:?}");
        }
    }
    // The same where the connection breaks.
    let broken = RequestError::new(StoreErrorKind::Unreachable, "reset");
    let parts = vec![Ok(Bytes::copy_from_slice(&whole[..500])), Err(broken)];
    let (answers, ended) = read_from(received(parts), 5, &format()).await;
    assert_eq!(ended.unwrap_err().kind, StoreErrorKind::Unreachable);
    assert!(is_hit(&answers[0], 0) && answers[2].is_none());
}

#[tokio::test]
async fn no_flipped_bit_makes_another_artifact() {
    let whole = whole().await;
    for at in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let (answers, _) = read(&bytes, 5).await;
        for (n, answer) in (0..).zip(&answers) {
            if let Some(BatchAnswer::Fetched(Fetched::Hit(_))) = answer {
                assert!(is_hit(answer, n), "{at}");
            }
        }
    }
}

#[tokio::test]
async fn the_frame_of_another_key_is_asked_for_again() {
    let swapped = [entry(&frame_of(1, 10).await), entry(&frame_of(0, 10).await)].concat();
    let (answers, ended) = read(&swapped, 2).await;
    assert!(ended.unwrap());
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Some(BatchAnswer::AskAlone)))
    );
}

#[tokio::test]
async fn what_a_single_lookup_would_not_serve_is_not_served() {
    let mut flipped = frame_of(0, 100).await;
    *flipped.last_mut().unwrap() ^= 1;
    let too_large = frame_of(1, 200_000).await;
    let bytes = [
        entry(&flipped),
        entry(&too_large),
        entry(&frame_of(2, 10).await),
    ]
    .concat();
    let (answers, ended) = read(&bytes, 3).await;
    assert!(ended.unwrap());
    assert_eq!(corrupt(&answers[0]), Some(FrameError::BadPayload));
    assert_eq!(corrupt(&answers[1]), Some(FrameError::TooLarge));
    assert!(is_hit(&answers[2], 2));

    let keys = TrustedKeys::from(SharedSecret::new("secret"));
    let format = FrameFormat::new(Some(keys), 1000);
    let body = received(vec![Ok(entry(&frame_of(0, 10).await).into())]);
    let (answers, _) = read_from(body, 1, &format).await;
    assert!(corrupt(&answers[0]).unwrap().is_unauthenticated());
}

/// Lengths are the server's word: nothing is made ready for them, and no answer may go on for ever.
#[tokio::test]
async fn a_server_that_announces_too_much_is_not_read() {
    let format = FrameFormat::new(None, u64::MAX);
    for length in [MAX_BYTES as u32 + 1, u32::MAX - 1] {
        let parts = vec![Ok(length.to_le_bytes().to_vec().into())];
        // Nothing comes after it: whoever waits for more is stuck.
        let parts = stream::iter(parts).chain(stream::pending()).boxed();
        let (_, ended) = read_from(Pieces::new(parts, PATIENCE), 1, &format).await;
        assert!(ended.unwrap_err().to_string().contains("announces"));
    }
    // In all, not only one by one.
    let half = vec![0; MAX_BYTES as usize / 2 + 1];
    let (answers, ended) = read_from(
        received(vec![Ok(entry(&half).into()), Ok(entry(&half).into())]),
        2,
        &self::format(),
    )
    .await;
    assert_eq!(corrupt(&answers[0]), Some(FrameError::TooLarge));
    assert!(ended.is_err() && answers[1].is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_ended_behind_an_entry_and_not_in_one() {
    let frames = [
        frame_of(0, 10).await,
        frame_of(1, 10).await,
        frame_of(2, 10).await,
    ];
    let parts = stream::iter(frames).then(|frame| async move {
        advance(PATIENCE * 2 / 3).await;
        Ok(Bytes::from(entry(&frame)))
    });
    let body = Pieces::new(parts.boxed(), PATIENCE);
    let (answers, ended) = read_from(body, 3, &format()).await;
    assert!(!ended.unwrap());
    assert!(is_hit(&answers[0], 0) && is_hit(&answers[1], 1));
    assert!(answers[2].is_none());
}
