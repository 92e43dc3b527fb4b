//! What somebody can do who may write to a tier, and has no key that its readers accept.

use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use pipeline_cache::signatures::{PublicKey, Signer, TrustedSigners};
use pipeline_cache::{
    Artifact, DiskCache, Fetched, ObjectStoreCache, PipelineCacheStore, RedisCache, RemoteCache,
    SharedSecret, Trust,
};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use super::{
    KEY, OTHER, all_signers, artifact, branch_key, frame, main_key, poison, revoked_key,
    signing_key,
};
use crate::support::redis::Redis;
use crate::support::scripted_http::{ScriptedServer, answer};

/// Where the signature stands in a frame, after its signer.
const SIGNATURE: std::ops::Range<usize> = 176..240;

/// The neutral element of the curve: its multiples are all the same.
fn small_order() -> PublicKey {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    PublicKey::from_bytes(bytes)
}

/// What a reader on the main branch accepts, where a key that is none got into the list.
fn signers() -> TrustedSigners {
    let mistake = Signer::new("mistake", "main", small_order());
    let listed = all_signers().into_iter().chain([mistake]);
    let signers = TrustedSigners::reading(["main"], listed);
    assert!(signers.revoke(&revoked_key().public_key()));
    signers
}

/// Whoever can write to the tier can make the check and the tag of a frame.
fn seal(mut frame: Vec<u8>) -> Vec<u8> {
    let check = blake3::hash(&frame[..104]);
    frame[104..112].copy_from_slice(&check.as_bytes()[..8]);
    let end = payload_start(&frame);
    let tag = blake3::hash(&[&frame[..112], &frame[144..end]].concat());
    frame[112..144].copy_from_slice(tag.as_bytes());
    frame
}

fn payload_start(frame: &[u8]) -> usize {
    144 + u32::from_le_bytes(frame[12..16].try_into().unwrap()) as usize
}

/// The frame after a change, as an attacker seals it.
fn changed(frame: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = frame.to_vec();
    change(&mut frame);
    seal(frame)
}

/// The same signature with another number in it, which a careless check takes for the same number.
fn add_group_order(frame: &mut [u8]) {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (digit, order) in frame[SIGNATURE][32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*digit) + u16::from(order) + carry;
        (*digit, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(carry, 0);
}

/// With a signer of small order, this is what a careless check takes for a signature of anything.
fn sign_with_small_order(frame: &mut [u8]) {
    frame[144..240].fill(0);
    frame[144..176].copy_from_slice(small_order().as_bytes());
    frame[SIGNATURE][..32].copy_from_slice(small_order().as_bytes());
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Served,
    /// Forged: nobody can use it.
    Corrupt,
    /// Somebody else's entry.
    Refused,
}

fn attacks() -> Vec<(&'static str, Vec<u8>, Expected)> {
    use Expected::{Corrupt, Refused, Served};
    let good = frame(&artifact().signed(&KEY, &main_key()));
    let own = frame(&poison().signed(&KEY, &signing_key(9)));
    let other = artifact().signed(&OTHER, &main_key());
    let of_other_key = changed(&other.to_frame(&OTHER, None).unwrap(), |frame| {
        frame[32..64].copy_from_slice(KEY.as_bytes());
    });
    let in_parts = Artifact::builder().part("code", "x").build().unwrap();
    let in_parts = frame(&in_parts.signed(&KEY, &main_key()));
    let main = main_key().public_key();
    let of_secret = poison().to_frame(&KEY, Some(&SharedSecret::new("s").into()));
    vec![
        ("signed on main", good.clone(), Served),
        ("not signed (downgrade)", frame(&poison()), Refused),
        (
            "says that it is not signed (downgrade)",
            changed(&good, |frame| frame[10] &= !8),
            Refused,
        ),
        (
            "says it is signed, and is not",
            changed(&frame(&poison()), |frame| frame[10] |= 8),
            Corrupt,
        ),
        ("forged signer: a key of his own", own.clone(), Refused),
        (
            "forged signer: names main's key",
            changed(&own, |frame| {
                frame[144..176].copy_from_slice(main.as_bytes())
            }),
            Corrupt,
        ),
        (
            "forged signer: of small order, in the list",
            changed(&own, |frame| sign_with_small_order(frame)),
            Corrupt,
        ),
        (
            "replay of a revoked signer",
            frame(&artifact().signed(&KEY, &revoked_key())),
            Refused,
        ),
        (
            "a branch poisons main",
            frame(&poison().signed(&KEY, &branch_key())),
            Refused,
        ),
        (
            "main's signature over other bytes",
            changed(&own, |frame| {
                frame[144..240].copy_from_slice(&good[144..240])
            }),
            Corrupt,
        ),
        (
            "main's signature, malleated",
            changed(&good, |frame| add_group_order(frame)),
            Corrupt,
        ),
        ("main's artifact of another key", of_other_key, Corrupt),
        (
            "main's artifact, provenance edited",
            changed(&good, |frame| frame[245] ^= 1),
            Corrupt,
        ),
        (
            "main's artifact, compile time edited",
            changed(&good, |frame| {
                let end = payload_start(frame);
                frame[end - 8] ^= 1;
            }),
            Corrupt,
        ),
        (
            "main's artifact, with one more field",
            changed(&good, |frame| {
                let end = payload_start(frame);
                frame.splice(end..end, [200, 1, 0, 0, 0, b'x']);
                frame[12] += 6;
            }),
            Corrupt,
        ),
        (
            "main's parts, said to be one payload",
            changed(&in_parts, |frame| frame[10] &= !4),
            Corrupt,
        ),
        (
            "made with a shared secret",
            of_secret.unwrap().into(),
            Refused,
        ),
    ]
}

async fn over_http(frame: &[u8]) -> Fetched {
    let server = ScriptedServer::always(answer("200 OK", frame));
    let remote = RemoteCache::builder()
        .no_proxy()
        .trust(Trust::Signed(signers()))
        .build(server.url())
        .unwrap();
    fetch_both(&remote).await
}

async fn in_an_object_store(frame: &[u8]) -> Fetched {
    let objects = Arc::new(InMemory::new());
    for folder in ["", "aliases/"] {
        let name = Path::from(format!("{folder}{KEY}.bin"));
        objects.put(&name, frame.to_vec().into()).await.unwrap();
    }
    let cache = ObjectStoreCache::builder()
        .trust(Trust::Signed(signers()))
        .build_on(objects, "");
    fetch_both(&cache).await
}

async fn on_disk(frame: &[u8]) -> Fetched {
    let folder = tempfile::tempdir().unwrap();
    let cache = DiskCache::builder()
        .trusted_signers(signers())
        .root(folder.path())
        .open()
        .await
        .unwrap();
    std::fs::create_dir(folder.path().join("aliases")).unwrap();
    let names = ["", "aliases/"].map(|apart| folder.path().join(format!("{apart}{KEY}.bin")));
    names
        .iter()
        .for_each(|name| std::fs::write(name, frame).unwrap());
    let fetched = fetch_both(&cache).await;
    // A foreign entry stays; a forged one makes room.
    let stays = names.map(|name| name.exists());
    assert_eq!(stays, [!matches!(fetched, Fetched::Corrupt(_)); 2]);
    fetched
}

/// What a tier says of the entry, and of the same as a source alias.
async fn fetch_both(store: &dyn PipelineCacheStore) -> Fetched {
    let fetched = store.fetch(&KEY).await.unwrap();
    let aliases = store.alias_stores();
    let of_alias = aliases[0].fetch(&KEY).await.unwrap();
    assert_eq!(fetched, of_alias);
    fetched
}

/// Sets a key to bytes, which `redis-cli` takes as text alone.
fn set(server: &Redis, key: &str, value: &[u8]) {
    let (of_key, of_value) = (key.len(), value.len());
    let start = format!("*3\r\n$3\r\nSET\r\n${of_key}\r\n{key}\r\n${of_value}\r\n");
    let mut connection = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let request = [start.as_bytes(), value, b"\r\n"].concat();
    connection.write_all(&request).unwrap();
    let mut reply = [0; 5];
    connection.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+OK\r\n");
}

/// `None` where Redis is not installed.
async fn in_redis(server: Option<&Redis>, frame: &[u8]) -> Option<Fetched> {
    let server = server?;
    for folder in ["", "aliases:"] {
        set(server, &format!("signed:{folder}{KEY}"), frame);
    }
    let cache = RedisCache::builder()
        .key_prefix("signed:")
        .trust(Trust::Signed(signers()))
        .build(server.url())
        .unwrap();
    Some(fetch_both(&cache).await)
}

fn judge(fetched: Fetched, attack: &str) -> Expected {
    match fetched {
        Fetched::Hit(served) => {
            assert_eq!(served, artifact(), "{attack}");
            Expected::Served
        }
        Fetched::Corrupt(_) => Expected::Corrupt,
        Fetched::Refused => Expected::Refused,
        other => panic!("{attack}: {other:?}"),
    }
}

#[tokio::test]
async fn nothing_that_an_attacker_made_is_served_from_any_tier() {
    println!("{:<44}      http   objects      disk     redis", "attack");
    let server = Redis::start("");
    for (attack, frame, expected) in attacks() {
        let mut found = vec![
            over_http(&frame).await,
            in_an_object_store(&frame).await,
            on_disk(&frame).await,
        ];
        found.extend(in_redis(server.as_ref(), &frame).await);
        let found: Vec<_> = found
            .into_iter()
            .map(|found| judge(found, attack))
            .collect();
        let row: Vec<_> = found.iter().map(|found| format!("{found:?}")).collect();
        println!(
            "{attack:<44}{:>10}{:>10}{:>10}{:>10}",
            row[0],
            row[1],
            row[2],
            row.get(3).map_or("-", String::as_str)
        );
        assert!(
            found.iter().all(|found| *found == expected),
            "{attack}: {row:?}"
        );
    }
}

/// A set remembers what it verified. That must not stand for anything else: each attack comes after
/// the good entry was served with the same set.
#[tokio::test]
async fn what_was_verified_stands_for_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let cache = DiskCache::builder()
        .trusted_signers(signers())
        .root(folder.path())
        .open()
        .await
        .unwrap();
    let entry = folder.path().join(format!("{KEY}.bin"));
    for (attack, frame, expected) in attacks() {
        for _ in 0..3 {
            std::fs::write(&entry, &attacks()[0].1).unwrap();
            assert_eq!(cache.get(&KEY).await.unwrap(), Some(artifact()));
            std::fs::write(&entry, &frame).unwrap();
            let fetched = cache.fetch(&KEY).await.unwrap();
            assert_eq!(judge(fetched, attack), expected, "{attack}");
        }
    }
}
