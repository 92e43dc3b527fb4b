//! Compile leases in the server: a key with a time to live, whose value tells its holder.
//!
//! Each step is a script, so that it is one step to all others. The key of a lease holds that of its
//! entry in braces: a cluster keeps both on one node. Its name is also that of the channel on which
//! its end is announced.

use redis::{Cmd, Value};

use super::announcements::{Announcements, Watch};
use super::entries::{entry_key, millis, unexpected};
use super::link::Link;
use crate::key::PipelineFingerprint;
use crate::network::{LeaseAnswer, LeaseBackend, LeaseRequest, RequestError};

/// Whoever asks again, because it got no reply, has it already, and gets its whole time again.
const ACQUIRE: &str = "\
if ARGV[3] == '0' and redis.call('EXISTS', KEYS[2]) == 1 then return 2 end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

const RENEW: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// A user that may not publish still releases: others look now and then.
const RELEASE: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.pcall('PUBLISH', KEYS[1], '')
return 1";

pub(super) struct RedisLeases {
    pub(super) link: Link,
    pub(super) prefix: String,
    pub(super) has_credentials: bool,
    pub(super) announcements: Announcements,
}

impl RedisLeases {
    fn lease_key(&self, key: &PipelineFingerprint) -> String {
        format!(
            "{0}lease:{{{1}}}",
            self.prefix,
            entry_key(&self.prefix, key)
        )
    }

    /// The number that a script returns.
    async fn run(&self, script: &str, lease: &LeaseRequest) -> Result<i64, RequestError> {
        let key = self.lease_key(&lease.key);
        let mut command = Cmd::new();
        command
            .arg("EVAL")
            .arg(script)
            .arg(2)
            .arg(&key)
            .arg(entry_key(&self.prefix, &lease.key))
            .arg(&*lease.token)
            .arg(millis(lease.time))
            .arg(i64::from(lease.ignores_entry));
        match self.link.send(&command, &key).await {
            Ok(Value::Int(number)) => Ok(number),
            Ok(_) => Err(unexpected()),
            Err(failure) => Err(self.link.error_of_a_write(failure)),
        }
    }
}

impl LeaseBackend for RedisLeases {
    type Watch = Watch;

    fn credentials_version(&self) -> Option<u64> {
        self.has_credentials.then_some(0)
    }

    async fn acquire(&self, lease: &LeaseRequest) -> Result<LeaseAnswer, RequestError> {
        match self.run(ACQUIRE, lease).await? {
            0 => Ok(LeaseAnswer::Held),
            1 => Ok(LeaseAnswer::Granted),
            2 => Ok(LeaseAnswer::Stored),
            _ => Err(unexpected()),
        }
    }

    async fn renew(&self, lease: &LeaseRequest) -> Result<bool, RequestError> {
        Ok(self.run(RENEW, lease).await? == 1)
    }

    async fn release(&self, lease: &LeaseRequest) -> Result<(), RequestError> {
        self.run(RELEASE, lease).await.map(drop)
    }

    fn watch(&self, lease: &LeaseRequest) -> Watch {
        self.announcements.watch(self.lease_key(&lease.key))
    }
}
