//! What goes below rdkafka, and all that is unsafe in this crate: records by the batch from a queue
//! of one's own, records handed over with a topic's handle, the transaction calls that do not poll
//! in steps of 100 ms, and the admin calls that rdkafka has no safe form of.
//!
//! Everything that leaves this file is safe to use in any order.
#![allow(unsafe_code, reason = "the one file for it; each block says why it holds")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::{RDKafka, RDKafkaErrorCode, RDKafkaMessage, RDKafkaQueue, RDKafkaTopic};
use rdkafka::{Offset as Position, TopicPartitionList};

use crate::{Offset, Records, Topic};

type Vu = sys::rd_kafka_vu_t;

/// Messages taken from a queue in one call.
const FETCHED_MAX: usize = 2048;
const ERROR_TEXT_BYTES: usize = 512;

/// What a call of librdkafka's failed with.
#[derive(Debug)]
pub(super) struct CallError {
    pub(super) code: RDKafkaErrorCode,
    pub(super) text: String,
    pub(super) is_retriable: bool,
    pub(super) requires_abort: bool,
}

impl CallError {
    fn new(code: RDKafkaErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), is_retriable: false, requires_abort: false }
    }

    /// Takes the error that a call has returned.
    fn check(error: *mut sys::rd_kafka_error_t) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: not null, so it is an error that the call has made for us; it is destroyed once,
        // here, after its strings were copied.
        unsafe {
            let found = Self {
                code: sys::rd_kafka_error_code(error).into(),
                text: text(sys::rd_kafka_error_string(error)),
                is_retriable: sys::rd_kafka_error_is_retriable(error) != 0,
                requires_abort: sys::rd_kafka_error_txn_requires_abort(error) != 0,
            };
            sys::rd_kafka_error_destroy(error);
            Err(found)
        }
    }

    /// The fatal error that this client has met, if any: it stays so.
    pub(super) fn fatal<C: ClientContext>(client: &Client<C>) -> Option<Self> {
        client.fatal_error().map(|(code, text)| Self::new(code, text))
    }
}

/// # Safety
/// `from` is null, or a C string that lives until this returns.
unsafe fn text(from: *const c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned()
}

/// # Safety
/// `from` is null, or holds `len` bytes that live and stay as they are for `'a`.
unsafe fn bytes<'a>(from: *const c_void, len: usize) -> &'a [u8] {
    if from.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts(from.cast(), len) }
}

fn millis(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

fn c_string(value: &str) -> Result<CString, CallError> {
    CString::new(value).map_err(|_| CallError::new(RDKafkaErrorCode::InvalidArgument, format!("{value:?} has a NUL")))
}

/// A queue of librdkafka's.
struct Queue(NonNull<RDKafkaQueue>);

// SAFETY: librdkafka's queues may be used and destroyed on any thread.
unsafe impl Send for Queue {}

impl Queue {
    fn new<C: ClientContext>(client: &Client<C>) -> Result<Self, CallError> {
        // SAFETY: the client is alive; a queue of its own is returned, or null.
        let queue = unsafe { sys::rd_kafka_queue_new(client.native_ptr()) };
        NonNull::new(queue).map(Self).ok_or_else(|| CallError::new(RDKafkaErrorCode::Fail, "no queue could be made"))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: it is ours, and destroyed this once. Whoever holds one drops it before its client.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) };
    }
}

/// A consumer, and the queue that records come by. Events come by the consumer's own.
pub(super) struct Fetcher<C: ConsumerContext + 'static> {
    /// Before the consumer: fields are dropped in order, and a consumer whose records wait in
    /// another queue hangs as it is dropped.
    queue: Queue,
    slots: Slots,
    consumer: BaseConsumer<C>,
}

struct Slots(Vec<*mut RDKafkaMessage>);

// SAFETY: it holds messages only while `fetch` runs.
unsafe impl Send for Slots {}

impl<C: ConsumerContext + 'static> Fetcher<C> {
    pub(super) fn new(consumer: BaseConsumer<C>) -> Result<Self, CallError> {
        let queue = Queue::new(consumer.client())?;
        Ok(Self { queue, slots: Slots(Vec::with_capacity(FETCHED_MAX)), consumer })
    }

    pub(super) fn consumer(&self) -> &BaseConsumer<C> {
        &self.consumer
    }

    /// Has the records of a partition come by our queue. To be called before it is assigned: it
    /// holds until it is taken away.
    pub(super) fn route(&self, topic: &str, partition: i32) -> Result<(), CallError> {
        let topic = c_string(topic)?;
        // SAFETY: the client and the name live through the call.
        let source = unsafe {
            sys::rd_kafka_queue_get_partition(self.consumer.client().native_ptr(), topic.as_ptr(), partition)
        };
        let Some(source) = NonNull::new(source) else {
            return Err(CallError::new(RDKafkaErrorCode::UnknownPartition, "the partition has no queue"));
        };
        let source = Queue(source);
        // SAFETY: both queues are alive and of this client.
        unsafe { sys::rd_kafka_queue_forward(source.0.as_ptr(), self.queue.0.as_ptr()) };
        Ok(())
    }

    /// Shows `visit` what is there, or what comes within `timeout`, `most` messages at the most, in
    /// order. With a time-out it waits for so many: ask for one.
    pub(super) fn fetch(&mut self, timeout: Duration, most: usize, mut visit: impl FnMut(&Fetched<'_>)) -> usize {
        let slots = &mut self.slots.0;
        slots.clear();
        // SAFETY: there is room for `FETCHED_MAX` pointers, as many as said are written, and those
        // are the messages that we own from here on.
        unsafe {
            let most = most.min(FETCHED_MAX);
            let queue = self.queue.0.as_ptr();
            let found = sys::rd_kafka_consume_batch_queue(queue, millis(timeout), slots.as_mut_ptr(), most);
            slots.set_len(usize::try_from(found).unwrap_or(0));
        }
        let count = slots.len();
        for message in slots.drain(..) {
            // SAFETY: ours, not null, destroyed once and after its last use: what is lent to
            // `visit` cannot outlive the call.
            unsafe {
                visit(&Fetched { message: &*message, whole: message });
                sys::rd_kafka_message_destroy(message);
            }
        }
        count
    }
}

/// A record as it came, or an error of its partition.
pub(super) struct Fetched<'a> {
    message: &'a RDKafkaMessage,
    /// The same, and what librdkafka keeps behind it.
    whole: *const RDKafkaMessage,
}

/// A fetched message as librdkafka 2.12.1 has it (`rd_kafka_msg_t` of `rdkafka_msg.h`), up to where its
/// headers stand in the bytes that were fetched.
#[repr(C)]
struct Whole {
    message: RDKafkaMessage,
    neighbours: [*mut c_void; 2],
    flags: c_int,
    timestamp_type: c_int,
    timestamp: i64,
    parsed_headers: *mut c_void,
    status: c_int,
    broker: i32,
    headers_len: i32,
    headers: *const u8,
}

/// The version whose form that is. The library is compiled with the bindings, and linked into the binary.
const WHOLE_OF: i32 = 0x020c_01ff;

impl<'a> Fetched<'a> {
    pub(super) fn error(&self) -> Option<(RDKafkaErrorCode, String)> {
        if self.message.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        // SAFETY: the message is alive, and its text with it.
        Some((self.message.err.into(), unsafe { text(sys::rd_kafka_message_errstr(self.message)) }))
    }

    /// The same for all records of a topic that are at hand.
    pub(super) fn topic_id(&self) -> usize {
        self.message.rkt.addr()
    }

    pub(super) fn topic(&self) -> &'a str {
        if self.message.rkt.is_null() {
            return "";
        }
        // SAFETY: the topic's handle lives as long as the message, and its name with it.
        unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.message.rkt)) }.to_str().unwrap_or("")
    }

    pub(super) fn partition(&self) -> i32 {
        self.message.partition
    }

    pub(super) fn offset(&self) -> i64 {
        self.message.offset
    }

    pub(super) fn timestamp_ms(&self) -> i64 {
        // SAFETY: the message is alive; a null type is allowed.
        unsafe { sys::rd_kafka_message_timestamp(self.message, ptr::null_mut()) }
    }

    pub(super) fn key(&self) -> &'a [u8] {
        // SAFETY: key and length belong together and live as long as the message.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }

    pub(super) fn value(&self) -> &'a [u8] {
        // SAFETY: as for the key.
        unsafe { bytes(self.message.payload, self.message.len) }
    }

    /// The bytes that the headers came as, count and lengths included, if they can be had: librdkafka
    /// only gives a list of them, for which it allocates each, while neighbours mostly have the same.
    pub(super) fn header_bytes(&self) -> Option<&'a [u8]> {
        if sys::RD_KAFKA_VERSION != WHOLE_OF || self.message.payload.is_null() {
            return None;
        }
        // SAFETY: a message that was fetched stands at the beginning of a `rd_kafka_msg_t`, whose form
        // is that of the version looked at above, and it lives as long as what is lent.
        let whole = unsafe { &*self.whole.cast::<Whole>() };
        let behind_value = self.message.payload.cast::<u8>().wrapping_add(self.message.len).cast_const();
        // In a record of Kafka they begin where the value ends. Seen to be so, it is their place.
        if whole.headers != behind_value || whole.headers_len < 1 {
            return None;
        }
        // SAFETY: place and length belong together: the rest of a record in the buffer that the value
        // lies in, which lives as long as the message.
        Some(unsafe { std::slice::from_raw_parts(whole.headers, usize::try_from(whole.headers_len).unwrap_or(0)) })
    }

    /// The headers, in order.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; where it has headers they are its own, and stay as they are
        // until it is destroyed.
        let found = unsafe { sys::rd_kafka_message_headers(self.message, &mut headers) } == none;
        let count = if found { usize::MAX } else { 0 };
        (0..count).map_while(move |i| {
            let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
            // SAFETY: name and value live as long as the message; behind the last there is an error.
            unsafe {
                (sys::rd_kafka_header_get_all(headers, i, &mut name, &mut value, &mut len) == none)
                    .then(|| (CStr::from_ptr(name).to_str().unwrap_or(""), bytes(value, len)))
            }
        })
    }
}

/// A member's place in its group: the generation that offsets in a transaction are checked against.
pub(super) struct Generation(NonNull<sys::rd_kafka_consumer_group_metadata_t>);

// SAFETY: it is never changed after it was made, and may be read and destroyed on any thread.
unsafe impl Send for Generation {}
// SAFETY: as above.
unsafe impl Sync for Generation {}

impl Generation {
    pub(super) fn of<C: ConsumerContext + 'static>(fetcher: &Fetcher<C>) -> Option<Self> {
        // SAFETY: the client is alive; what is returned is a copy for us.
        let metadata = unsafe { sys::rd_kafka_consumer_group_metadata(fetcher.consumer.client().native_ptr()) };
        NonNull::new(metadata).map(Self)
    }

    /// Whether the group knew this consumer as a member.
    pub(super) fn has_member(&self) -> bool {
        // SAFETY: it is alive, and its member id with it.
        !unsafe { text(sys::rd_kafka_consumer_group_metadata_member_id(self.0.as_ptr())) }.is_empty()
    }

    /// Below 0 outside a group.
    pub(super) fn number(&self) -> i32 {
        // SAFETY: it is alive.
        unsafe { sys::rd_kafka_consumer_group_metadata_generation_id(self.0.as_ptr()) }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed this once.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) };
    }
}

/// A transactional producer with the handles of the topics that it has written to. A thread of its
/// own answers its events, so that no call here waits for the caller to poll.
pub(super) struct Sender<C: ProducerContext + 'static> {
    topics: Vec<NonNull<RDKafkaTopic>>,
    header_names: Vec<CString>,
    arguments: Vec<Vu>,
    producer: ThreadedProducer<C>,
}

// SAFETY: topic handles may be used on any thread; the arguments are written anew at each call.
unsafe impl<C: ProducerContext + 'static> Send for Sender<C> {}

/// Names of headers that are kept for the next record.
const HEADER_NAMES_MAX: usize = 32;

impl<C: ProducerContext + 'static> Sender<C> {
    pub(super) fn new(producer: ThreadedProducer<C>) -> Self {
        Self { topics: Vec::new(), header_names: Vec::new(), arguments: Vec::new(), producer }
    }

    pub(super) fn producer(&self) -> &ThreadedProducer<C> {
        &self.producer
    }

    fn native(&self) -> *mut RDKafka {
        self.producer.client().native_ptr()
    }

    /// A handle of the topic, for `send`.
    pub(super) fn open(&mut self, topic: &Topic) -> Result<usize, CallError> {
        let name = c_string(topic.as_str())?;
        // SAFETY: client and name live through the call; a null configuration means the client's.
        let handle = unsafe { sys::rd_kafka_topic_new(self.native(), name.as_ptr(), ptr::null_mut()) };
        let handle = NonNull::new(handle)
            .ok_or_else(|| CallError::new(RDKafkaErrorCode::InvalidTopic, format!("{topic} is not a topic's name")))?;
        self.topics.push(handle);
        Ok(self.topics.len() - 1)
    }

    /// Hands over the records from `from` on; their bytes are copied. An empty key is sent as none, and
    /// librdkafka takes time 0 for now. The report of the first record of all comes with the first mark, that
    /// of the last with the second. An error comes with which record was not taken.
    pub(super) fn send(
        &mut self,
        topic: usize,
        partition: i32,
        records: &Records,
        from: usize,
        marks: [usize; 2],
    ) -> Result<(), (usize, CallError)> {
        use sys::rd_kafka_vtype_t as Kind;
        use sys::rd_kafka_vu_s__bindgen_ty_1 as Value;
        let Some(topic) = self.topics.get(topic) else {
            return Err((from, CallError::new(RDKafkaErrorCode::UnknownTopic, "the topic was not opened")));
        };
        let lent = |bytes: &[u8]| Value {
            mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: bytes.as_ptr().cast_mut().cast(),
                size: bytes.len(),
            },
        };
        let copy = c_int::try_from(sys::RD_KAFKA_MSG_F_COPY).unwrap_or(2);
        let arguments = &mut self.arguments;
        let mut rare_names = Vec::new();
        let mut before = None;
        // What a record shares with the one before: headers, mostly.
        let mut shared = 0;
        for i in from..records.len() {
            let record = records.get(i, Offset(0));
            if before.is_some_and(|headers| record.headers.are_those_of(headers)) {
                arguments.truncate(shared);
            } else {
                arguments.clear();
                arguments.push(Vu { vtype: Kind::RD_KAFKA_VTYPE_RKT, u: Value { rkt: topic.as_ptr() } });
                arguments.push(Vu { vtype: Kind::RD_KAFKA_VTYPE_PARTITION, u: Value { i32_: partition } });
                arguments.push(Vu { vtype: Kind::RD_KAFKA_VTYPE_MSGFLAGS, u: Value { i: copy } });
                for (name, value) in record.headers.iter() {
                    // The bytes of a CString stay where they are when the list grows.
                    let name = match self.header_names.iter().find(|known| known.to_bytes() == name.as_bytes()) {
                        Some(known) => known.as_ptr(),
                        None => {
                            let names = if self.header_names.len() < HEADER_NAMES_MAX {
                                &mut self.header_names
                            } else {
                                &mut rare_names
                            };
                            let new = c_string(name).map_err(|error| (i, error))?;
                            let at = new.as_ptr();
                            names.push(new);
                            at
                        }
                    };
                    let header = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 {
                        name,
                        val: value.as_ptr().cast(),
                        size: isize::try_from(value.len()).unwrap_or(0),
                    };
                    arguments.push(Vu { vtype: Kind::RD_KAFKA_VTYPE_HEADER, u: Value { header } });
                }
                (before, shared) = (Some(record.headers), arguments.len());
            }
            let timestamp_ms = if record.timestamp_ms == 0 { 1 } else { record.timestamp_ms };
            arguments.push(Vu { vtype: Kind::RD_KAFKA_VTYPE_TIMESTAMP, u: Value { i64_: timestamp_ms } });
            arguments.push(Vu { vtype: Kind::RD_KAFKA_VTYPE_VALUE, u: lent(record.value) });
            if !record.key.is_empty() {
                arguments.push(Vu { vtype: Kind::RD_KAFKA_VTYPE_KEY, u: lent(record.key) });
            }
            if i == 0 || i + 1 == records.len() {
                let mark = ptr::without_provenance_mut(marks[usize::from(i > 0)]);
                arguments.push(Vu { vtype: Kind::RD_KAFKA_VTYPE_OPAQUE, u: Value { ptr: mark } });
            }
            // SAFETY: each argument's value is the one of its kind; whatever they point to (the records,
            // the names, the topic) lives through the call, which copies it.
            CallError::check(unsafe {
                sys::rd_kafka_produceva(self.producer.client().native_ptr(), arguments.as_ptr(), arguments.len())
            })
            .map_err(|error| (i, error))?;
        }
        Ok(())
    }

    /// Sends what lingers, and waits so long for the answers.
    pub(super) fn flush(&self, timeout: Duration) {
        // SAFETY: the client is alive. That it is not done within the time-out is no error.
        unsafe { sys::rd_kafka_flush(self.native(), millis(timeout)) };
    }

    pub(super) fn init_transactions(&self, timeout: Duration) -> Result<(), CallError> {
        // SAFETY: the client is alive.
        CallError::check(unsafe { sys::rd_kafka_init_transactions(self.native(), millis(timeout)) })
    }

    pub(super) fn begin(&self) -> Result<(), CallError> {
        // SAFETY: the client is alive.
        CallError::check(unsafe { sys::rd_kafka_begin_transaction(self.native()) })
    }

    pub(super) fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        generation: &Generation,
        timeout: Duration,
    ) -> Result<(), CallError> {
        // SAFETY: client, list and generation are alive, and only read.
        CallError::check(unsafe {
            sys::rd_kafka_send_offsets_to_transaction(
                self.native(),
                offsets.ptr(),
                generation.0.as_ptr(),
                millis(timeout),
            )
        })
    }

    /// After a time-out it may be called again: it goes on from there.
    pub(super) fn commit(&self, timeout: Duration) -> Result<(), CallError> {
        // SAFETY: the client is alive.
        CallError::check(unsafe { sys::rd_kafka_commit_transaction(self.native(), millis(timeout)) })
    }

    /// As `commit`.
    pub(super) fn abort(&self, timeout: Duration) -> Result<(), CallError> {
        // SAFETY: the client is alive.
        CallError::check(unsafe { sys::rd_kafka_abort_transaction(self.native(), millis(timeout)) })
    }
}

impl<C: ProducerContext + 'static> Drop for Sender<C> {
    fn drop(&mut self) {
        for topic in self.topics.drain(..) {
            // SAFETY: ours, destroyed once, and before the client, which is a field.
            unsafe { sys::rd_kafka_topic_destroy(topic.as_ptr()) };
        }
    }
}

/// One admin call and its answer.
struct Call {
    queue: Queue,
    options: *mut sys::rd_kafka_AdminOptions_t,
    event: *mut sys::rd_kafka_event_t,
    timeout: Duration,
}

impl Call {
    fn new<C: ClientContext>(
        client: &Client<C>,
        api: sys::rd_kafka_admin_op_t,
        timeout: Duration,
    ) -> Result<Self, CallError> {
        let queue = Queue::new(client)?;
        // SAFETY: the client is alive; the options are ours and destroyed in `drop`. The text has
        // the length that is given.
        unsafe {
            let options = sys::rd_kafka_AdminOptions_new(client.native_ptr(), api);
            let mut why: [c_char; ERROR_TEXT_BYTES] = [0; ERROR_TEXT_BYTES];
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), why.as_mut_ptr(), why.len());
            Ok(Self { queue, options, event: ptr::null_mut(), timeout })
        }
    }

    /// Waits for the answer to what was asked.
    fn answer(&mut self) -> Result<*mut sys::rd_kafka_event_t, CallError> {
        // The request has its own time-out, after which the answer is that error.
        let patience = self.timeout + Duration::from_secs(1);
        // SAFETY: the queue is alive; the event is ours and destroyed in `drop`.
        unsafe {
            self.event = sys::rd_kafka_queue_poll(self.queue.0.as_ptr(), millis(patience));
            if self.event.is_null() {
                return Err(CallError::new(RDKafkaErrorCode::OperationTimedOut, "no answer"));
            }
            let code = sys::rd_kafka_event_error(self.event);
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(CallError::new(code.into(), text(sys::rd_kafka_event_error_string(self.event))));
            }
        }
        Ok(self.event)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: both are ours and destroyed this once; either may be null.
        unsafe {
            if !self.event.is_null() {
                sys::rd_kafka_event_destroy(self.event);
            }
            if !self.options.is_null() {
                sys::rd_kafka_AdminOptions_destroy(self.options);
            }
        }
    }
}

/// # Safety
/// `items` is null, or points to `count` pointers that live for `'a`.
unsafe fn list_of<'a, T>(items: *mut *const T, count: usize) -> &'a [*const T] {
    if items.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: as the caller says.
    unsafe { std::slice::from_raw_parts(items.cast_const(), count) }
}

/// Waits for a connection that stays, to a broker that is known by its id: the first, to an address, is dropped
/// as soon as the ids are known. Asks for no topic. Nothing else makes a new client connect at once: left alone
/// it does so within a second.
pub(super) fn connect<C: ClientContext>(client: &Client<C>, timeout: Duration) -> Result<(), CallError> {
    let mut call = Call::new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER, timeout)?;
    // SAFETY: client, options and queue live through the call.
    unsafe { sys::rd_kafka_DescribeCluster(client.native_ptr(), call.options, call.queue.0.as_ptr()) };
    call.answer().map(|_| ())
}

/// The id of a topic, as Kafka's tools write it, and its number of partitions.
pub(super) fn describe_topic<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    with_rights: bool,
    timeout: Duration,
) -> Result<Described, CallError> {
    let mut call = Call::new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout)?;
    let name = c_string(topic)?;
    if with_rights {
        // SAFETY: the options live as long as the call; an error is destroyed once, or is null.
        unsafe {
            let error = sys::rd_kafka_AdminOptions_set_include_authorized_operations(call.options, 1);
            if !error.is_null() {
                sys::rd_kafka_error_destroy(error);
            }
        }
    }
    let mut names = [name.as_ptr()];
    // SAFETY: the names live through the call, which copies them; the collection is destroyed once.
    unsafe {
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        sys::rd_kafka_DescribeTopics(client.native_ptr(), topics, call.options, call.queue.0.as_ptr());
        sys::rd_kafka_TopicCollection_destroy(topics);
    }
    let event = call.answer()?;
    // SAFETY: the answer and all that it holds live until `call` is dropped; what is kept is copied.
    unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        let topics = list_of(sys::rd_kafka_DescribeTopics_result_topics(result, &mut count), count);
        let Some(&found) = topics.first() else {
            return Err(CallError::new(RDKafkaErrorCode::UnknownTopicOrPartition, "no such topic"));
        };
        let error = sys::rd_kafka_TopicDescription_error(found);
        if !error.is_null() && sys::rd_kafka_error_code(error) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(CallError::new(
                sys::rd_kafka_error_code(error).into(),
                text(sys::rd_kafka_error_string(error)),
            ));
        }
        let id = text(sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(found)));
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(found, &mut partitions);
        let mut allowed = 0;
        let operations = sys::rd_kafka_TopicDescription_authorized_operations(found, &mut allowed);
        let operations = if operations.is_null() { &[][..] } else { std::slice::from_raw_parts(operations, allowed) };
        let may = |wanted| operations.contains(&wanted);
        let [may_read, may_write] = [
            may(sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ),
            may(sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE),
        ];
        Ok(Described { id, partitions, may_read, may_write })
    }
}

/// A topic, and what this user may do with it, where that was asked for.
pub(super) struct Described {
    pub(super) id: String,
    pub(super) partitions: usize,
    pub(super) may_read: bool,
    pub(super) may_write: bool,
}

/// A topic to be made.
pub(super) struct New<'a> {
    pub(super) topic: &'a str,
    pub(super) partitions: i32,
    pub(super) configs: Vec<(&'a str, String)>,
}

/// Makes topics, in one request; what became of each, in their order. A replication factor of −1 is the
/// broker's default.
pub(super) fn create_topics<C: ClientContext>(
    client: &Client<C>,
    topics: &[New<'_>],
    replication: i32,
    timeout: Duration,
) -> Result<Vec<Result<(), CallError>>, CallError> {
    /// Topics that are asked for, destroyed once however this ends.
    struct Made(Vec<*mut sys::rd_kafka_NewTopic_t>);
    impl Drop for Made {
        fn drop(&mut self) {
            for topic in self.0.drain(..) {
                // SAFETY: ours, not null, and the call that took it has copied it.
                unsafe { sys::rd_kafka_NewTopic_destroy(topic) };
            }
        }
    }
    let mut call = Call::new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS, timeout)?;
    let mut made = Made(Vec::with_capacity(topics.len()));
    for New { topic, partitions, configs } in topics {
        let name = c_string(topic)?;
        let mut why: [c_char; ERROR_TEXT_BYTES] = [0; ERROR_TEXT_BYTES];
        // SAFETY: name and text live through the call, which copies the name; the text is a C string then.
        let new = unsafe {
            let new = sys::rd_kafka_NewTopic_new(name.as_ptr(), *partitions, replication, why.as_mut_ptr(), why.len());
            if new.is_null() {
                return Err(CallError::new(RDKafkaErrorCode::InvalidArgument, text(why.as_ptr())));
            }
            new
        };
        made.0.push(new);
        for (name, value) in configs {
            let (name, value) = (c_string(name)?, c_string(value)?);
            // SAFETY: the topic is alive; the strings live through the call, which copies them.
            unsafe { sys::rd_kafka_NewTopic_set_config(new, name.as_ptr(), value.as_ptr()) };
        }
    }
    // SAFETY: client, options and queue are alive, and the topics, which the call copies.
    unsafe {
        let queue = call.queue.0.as_ptr();
        sys::rd_kafka_CreateTopics(client.native_ptr(), made.0.as_mut_ptr(), made.0.len(), call.options, queue);
    }
    let event = call.answer()?;
    let mut found: Vec<Option<Result<(), CallError>>> = topics.iter().map(|_| None).collect();
    // SAFETY: as in `describe_topic`.
    unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_CreateTopics_result(event);
        for one in list_of(sys::rd_kafka_CreateTopics_result_topics(result, &mut count), count) {
            let name = text(sys::rd_kafka_topic_result_name(*one));
            let Some(at) = topics.iter().position(|New { topic, .. }| *topic == name) else { continue };
            let code = sys::rd_kafka_topic_result_error(*one);
            found[at] = Some(match code {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
                _ => Err(CallError::new(code.into(), text(sys::rd_kafka_topic_result_error_string(*one)))),
            });
        }
    }
    let silent = || Err(CallError::new(RDKafkaErrorCode::Fail, "the broker's answer leaves it out"));
    Ok(found.into_iter().map(|found| found.unwrap_or_else(silent)).collect())
}

/// The settings of a topic, as they are.
pub(super) fn describe_topic_configs<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<(String, String)>, CallError> {
    let mut call = Call::new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, timeout)?;
    let name = c_string(topic)?;
    // SAFETY: the name lives through the call, which copies it; the resource is destroyed once.
    unsafe {
        let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        let mut resources = [sys::rd_kafka_ConfigResource_new(kind, name.as_ptr())];
        let (resource, queue) = (resources[0], call.queue.0.as_ptr());
        sys::rd_kafka_DescribeConfigs(client.native_ptr(), resources.as_mut_ptr(), 1, call.options, queue);
        sys::rd_kafka_ConfigResource_destroy(resource);
    }
    let event = call.answer()?;
    let mut configs = Vec::new();
    // SAFETY: as in `describe_topic`.
    unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeConfigs_result(event);
        for resource in list_of(sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count), count) {
            let code = sys::rd_kafka_ConfigResource_error(*resource);
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(CallError::new(code.into(), text(sys::rd_kafka_ConfigResource_error_string(*resource))));
            }
            let mut entries = 0;
            for entry in list_of(sys::rd_kafka_ConfigResource_configs(*resource, &mut entries), entries) {
                let (name, value) = (sys::rd_kafka_ConfigEntry_name(*entry), sys::rd_kafka_ConfigEntry_value(*entry));
                configs.push((text(name), text(value)));
            }
        }
    }
    Ok(configs)
}

/// What an offset is asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// The first record kept.
    Start,
    /// Up to where all is decided: committed, or aborted.
    Stable,
    /// After the last record that was appended, decided or not.
    High,
}

/// Bounds of partitions of a topic, each in their order, or why one has no answer now. All are asked
/// for at once.
pub(super) fn bounds<C: ClientContext, const N: usize>(
    client: &Client<C>,
    topic: &str,
    partitions: &[i32],
    bounds: [Bound; N],
    timeout: Duration,
) -> Result<[Vec<Result<i64, RDKafkaErrorCode>>; N], CallError> {
    let mut calls = Vec::with_capacity(N);
    for bound in bounds {
        let call = Call::new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout)?;
        let isolation = match bound {
            Bound::High => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
            Bound::Start | Bound::Stable => sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
        };
        let wanted = if bound == Bound::Start { Position::Beginning } else { Position::End };
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(topic, *partition, wanted)
                .map_err(|e| CallError::new(RDKafkaErrorCode::InvalidArgument, e.to_string()))?;
        }
        // SAFETY: client and list live through the calls, which copy the list.
        unsafe {
            CallError::check(sys::rd_kafka_AdminOptions_set_isolation_level(call.options, isolation))?;
            sys::rd_kafka_ListOffsets(client.native_ptr(), list.ptr(), call.options, call.queue.0.as_ptr());
        }
        calls.push(call);
    }
    let mut found = std::array::from_fn(|_| vec![Err(RDKafkaErrorCode::UnknownPartition); partitions.len()]);
    for (call, found) in calls.iter_mut().zip(&mut found) {
        let event = call.answer()?;
        // SAFETY: as in `describe_topic`.
        unsafe {
            let mut count = 0;
            let result = sys::rd_kafka_event_ListOffsets_result(event);
            let infos = sys::rd_kafka_ListOffsets_result_infos(result, &mut count);
            for info in list_of(infos, count) {
                let Some(at) = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*info).as_ref() else { continue };
                let Some(i) = partitions.iter().position(|partition| *partition == at.partition) else { continue };
                found[i] = match at.err {
                    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(at.offset),
                    code => Err(code.into()),
                };
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_fetched_message_is_known() {
        // SAFETY: it takes nothing.
        let linked = unsafe { sys::rd_kafka_version() };
        assert_eq!(linked, sys::RD_KAFKA_VERSION, "bindings and library");
        assert_eq!(linked, WHOLE_OF, "look at `rd_kafka_msg_t` anew: until then headers are read in the slow way");
    }
}
