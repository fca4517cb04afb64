//! The reference job as a plain loop in Rust, exactly once: its lowest cost with the same fold, clients and store.
//!
//! The loop polls events and folds them partition by partition. All resulting records go into one transaction with the
//! positions; once it is committed, the instances go to the store. The loop cannot restore, has no standbys and rejects
//! no events: where a service would do any of that, it panics.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::Mutex;
use std::time::Duration;

use _native::fold::{Header, Sink};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::{self, BorrowedMessage, DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use rocksdb::{DB, Options, WriteBatch, WriteOptions};

use rust_loop::folding::{Folding, Partition, Read};
use rust_loop::given::Given;

/// Events of one transaction: as many as the service's bound of records comes to.
const MOST_EVENTS: usize = 5000;
/// Events that are folded together, as the service's chunks are: an instance is written once for all of its own.
const CHUNK: usize = 1000;
const WAIT: Duration = Duration::from_millis(200);
const REQUEST: Duration = Duration::from_secs(30);

/// The keys of positions in the store and in the changelog, as in the service.
const OFFSET_KEY: &[u8] = b"__faust\0offset__";
const POSITION_KEY: &[u8] = b"\0position";

fn main() {
    let given = Given::read();
    let (partitions, events, ready_file) = (given.partitions, given.events.clone(), given.ready_file.clone());
    let stores: Vec<DB> = (0..partitions).map(|partition| open(&given.state_dir, partition)).collect();
    // Two in turns: Kafka finishes a transaction some milliseconds after its commit, and until then its producer waits.
    let producers: Vec<Transactions> = (0..2).map(|number| claimed(&given, number)).collect();
    let consumer =
        BaseConsumer::from_config_and_context(&config(&given.consumer), Assignment { ready_file }).expect("a consumer");
    consumer.subscribe(&[&events]).expect("a subscription");
    let mut turns = producers.iter().cycle();
    let topics = Topics {
        changelog: given.changelog.clone(),
        states: given.states.clone(),
        notifications: given.notifications.clone(),
    };
    let folding = Folding::new(given);
    loop {
        let batch = poll(&consumer);
        if batch.is_empty() {
            continue;
        }
        let producer = turns.next().expect("a cycle");
        producer.begin_transaction().expect("a transaction");
        let (mut written, mut positions) = (Vec::new(), TopicPartitionList::new());
        for (partition, messages) in by_partition(&batch) {
            let store = &stores[usize::try_from(partition).expect("a partition")];
            let records: Vec<Read<'_>> =
                messages.iter().map(|each| (each.key(), each.payload().expect("an event"), each.offset())).collect();
            let mut ours = Records { producer, topics: &topics, partition, store, folded: HashMap::new() };
            for chunk in records.chunks(CHUNK) {
                folding.fold(chunk, &mut ours);
            }
            let next = records.last().expect("records").2 + 1;
            ours.position(next);
            positions.add_partition_offset(&events, partition, Offset::Offset(next)).expect("a position");
            written.push(ours);
        }
        let group = consumer.group_metadata().expect("a member of the group");
        producer.send_offsets_to_transaction(&positions, &group, REQUEST).expect("positions");
        producer.commit_transaction(REQUEST).expect("a commit");
        for each in written {
            each.write();
        }
    }
}

/// All events that have arrived, without waiting for more: those that came during the last batch.
fn poll(consumer: &BaseConsumer<Assignment>) -> Vec<BorrowedMessage<'_>> {
    let mut batch = Vec::new();
    let mut wait = WAIT;
    while batch.len() < MOST_EVENTS
        && let Some(message) = consumer.poll(wait)
    {
        batch.push(message.expect("a record"));
        wait = Duration::ZERO;
    }
    batch
}

fn by_partition<'b, 'm>(batch: &'b [BorrowedMessage<'m>]) -> BTreeMap<i32, Vec<&'b BorrowedMessage<'m>>> {
    let mut found: BTreeMap<i32, Vec<_>> = BTreeMap::new();
    for message in batch {
        found.entry(message.partition()).or_default().push(message);
    }
    found
}

/// Writes the ready file once the partitions are assigned, which is final.
struct Assignment {
    ready_file: String,
}

impl ClientContext for Assignment {}

impl ConsumerContext for Assignment {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        assert!(matches!(rebalance, Rebalance::Assign(_)), "the only worker of its group lost its partitions");
        File::create(&self.ready_file).expect("the ready file");
    }
}

type Transactions = BaseProducer<Reports>;

/// The offset that each partition of the changelog has reached, by delivery reports.
struct Reports {
    reached: Vec<Mutex<i64>>,
}

/// For records whose delivery report does not matter; for the others, the partition.
const NOBODY: usize = usize::MAX;

impl Reports {
    fn reached(&self, partition: i32) -> i64 {
        *self.reached[usize::try_from(partition).expect("a partition")].lock().expect("no panic")
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, partition: usize) {
        let message = result.as_ref().expect("a delivery");
        if partition != NOBODY {
            *self.reached[partition].lock().expect("no panic") = message.offset();
        }
    }
}

fn claimed(given: &Given, number: usize) -> Transactions {
    let mut config = config(&given.producer);
    config.set("transactional.id", format!("{}-{number}", given.changelog));
    let reports = Reports { reached: (0..given.partitions).map(|_| Mutex::new(-1)).collect() };
    let producer = BaseProducer::from_config_and_context(&config, reports).expect("a producer");
    producer.init_transactions(REQUEST).expect("transactions");
    producer
}

fn config(settings: &[(String, String)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in settings {
        config.set(name, value);
    }
    config
}

struct Topics {
    changelog: String,
    states: String,
    notifications: String,
}

/// Gives the records of one partition to librdkafka, and collects its instances for the store.
struct Records<'r> {
    producer: &'r Transactions,
    topics: &'r Topics,
    partition: i32,
    store: &'r DB,
    folded: HashMap<Vec<u8>, Vec<u8>>,
}

impl Records<'_> {
    /// Send the position to the changelog, after the instances that it covers. Its report has the offset.
    fn position(&mut self, offset: i64) {
        let value = format!(r#"{{"topic_id": "", "offset": {offset}, "after_loss": false}}"#);
        let reported = usize::try_from(self.partition).expect("a partition");
        let record = BaseRecord::with_opaque_to(&self.topics.changelog, reported).partition(self.partition);
        self.send(record.key(POSITION_KEY).payload(value.as_bytes()));
    }

    /// Write the instances to the store after the commit, with the changelog's offset.
    fn write(&self) {
        let mut batch = WriteBatch::default();
        for (key, stored) in &self.folded {
            batch.put(key, stored);
        }
        batch.put(OFFSET_KEY, self.producer.context().reached(self.partition).to_string());
        self.store.write_opt(batch, &without_wal()).expect("a write");
    }

    fn send(&self, record: BaseRecord<'_, [u8], [u8], usize>) {
        if let Err((error, _)) = self.producer.send(record) {
            panic!("a record was not sent: {error}");
        }
    }
}

impl Partition for Records<'_> {
    fn load(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.folded.get(key).cloned().or_else(|| self.store.get(key).expect("a read"))
    }
}

impl Sink for Records<'_> {
    fn instance(&mut self, key: &[u8], stored: &[u8]) {
        self.folded.insert(key.to_vec(), stored.to_vec());
        let record = BaseRecord::with_opaque_to(&self.topics.changelog, NOBODY).partition(self.partition);
        self.send(record.key(key).payload(stored));
    }

    fn state(&mut self, key: &[u8], value: Option<&[u8]>, headers: &[Header<'_>]) {
        let record = BaseRecord { payload: value, ..BaseRecord::with_opaque_to(&self.topics.states, NOBODY) };
        self.send(record.key(key).headers(owned(headers)));
    }

    fn notification(&mut self, key: &[u8], value: &[u8], headers: &[Header<'_>]) {
        let record = BaseRecord::with_opaque_to(&self.topics.notifications, NOBODY);
        self.send(record.key(key).payload(value).headers(owned(headers)));
    }
}

fn owned(headers: &[Header<'_>]) -> OwnedHeaders {
    let empty = OwnedHeaders::new_with_capacity(headers.len());
    headers.iter().fold(empty, |all, &(key, value)| all.insert(message::Header { key, value }))
}

/// A store without a log of its own: the changelog is the log. Fails where a store exists, which would need a restore.
fn open(folder: &str, partition: i32) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_error_if_exists(true);
    DB::open(&options, format!("{folder}/{partition}")).expect("an empty store")
}

fn without_wal() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}
