//! Reading what is asked, and the answers that are given here.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

/// Octets of a message's header.
const HEADER: usize = 12;
/// Seconds that an answer of ours may be kept.
const TTL: u32 = 5;
/// What an answer of ours says it takes; nothing here comes near it.
const PAYLOAD: u16 = 1232;

/// One question, as it came.
#[derive(Debug)]
pub(super) struct Question<'a> {
    /// The whole message.
    pub(super) message: &'a [u8],
    /// Header and question.
    head: &'a [u8],
    query: Query,
    recursion: bool,
}

/// What a message is.
#[derive(Debug)]
pub(super) enum Read<'a> {
    /// A question.
    Question(Question<'a>),
    /// A question in a form that is not taken, and the answer that says so.
    Refused(Vec<u8>),
    /// Noise, or an answer: answering it could go on for ever.
    Ignored,
}

/// Reads a message's header and question; what follows is not looked at.
pub(super) fn read(message: &[u8]) -> Read<'_> {
    let mut decoder = BinDecoder::new(message);
    let Ok(header) = Header::read(&mut decoder) else { return Read::Ignored };
    if header.metadata.message_type != MessageType::Query {
        return Read::Ignored;
    }
    if header.metadata.op_code != OpCode::Query {
        return refused(&header, ResponseCode::NotImp);
    }
    if header.counts.queries != 1 {
        return refused(&header, ResponseCode::FormErr);
    }
    match Query::read(&mut decoder) {
        Ok(query) => Read::Question(Question {
            message,
            head: &message[..decoder.index().min(message.len())],
            query,
            recursion: header.metadata.recursion_desired,
        }),
        Err(_) => refused(&header, ResponseCode::FormErr),
    }
}

fn refused<'a>(header: &Header, code: ResponseCode) -> Read<'a> {
    let metadata = &header.metadata;
    let answer = Message::error_msg(metadata.id, metadata.op_code, code).to_vec();
    answer.map_or(Read::Ignored, Read::Refused)
}

impl Question<'_> {
    /// Whether this message answers it. Upstreams may leave the question out
    /// of an answer that says the question was odd.
    pub(super) fn answered_by(&self, answer: &[u8]) -> bool {
        if answer.len() < HEADER || answer[..2] != self.message[..2] || answer[2] & 0x80 == 0 {
            return false;
        }
        let questions = u16::from_be_bytes([answer[4], answer[5]]);
        match questions {
            0 => code(answer) != 0,
            1 => answer.get(HEADER..self.head.len()) == Some(&self.head[HEADER..]),
            _ => false,
        }
    }

    /// Nobody answered.
    pub(super) fn failed(&self) -> Vec<u8> {
        self.with(ResponseCode::ServFail, false, None)
    }

    fn with(&self, code: ResponseCode, ours: bool, address: Option<Ipv4Addr>) -> Vec<u8> {
        let id = u16::from_be_bytes([self.message[0], self.message[1]]);
        let mut answer = Message::response(id, OpCode::Query);
        answer.metadata.response_code = code;
        answer.metadata.authoritative = ours;
        answer.metadata.recursion_desired = self.recursion;
        answer.metadata.recursion_available = true;
        answer.add_query(self.query.clone());
        if let Some(address) = address {
            let name = self.query.name().clone();
            answer.add_answer(Record::from_rdata(name, TTL, RData::A(A(address))));
        }
        if Message::from_vec(self.message).is_ok_and(|asked| asked.edns.is_some()) {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD);
            answer.set_edns(edns);
        }
        // A name that was read can be written again.
        answer.to_vec().unwrap_or_default()
    }
}

/// An answer's response code, without what EDNS adds.
pub(super) fn code(answer: &[u8]) -> u8 {
    answer.get(3).map_or(0, |flags| flags & 0x0f)
}

/// Names that are answered here.
#[derive(Debug)]
pub(super) struct Names(BTreeMap<String, Ipv4Addr>);

impl Names {
    pub(super) fn new(names: BTreeMap<String, Ipv4Addr>) -> Self {
        Self(names.into_iter().map(|(name, address)| (canonical(&name), address)).collect())
    }

    /// The answer when the name is one of ours: its address, or nothing for
    /// other types, so that nobody asks elsewhere.
    pub(super) fn answer(&self, question: &Question<'_>) -> Option<Vec<u8>> {
        let query = &question.query;
        if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
            return None;
        }
        let address = *self.0.get(&canonical(&query.name().to_ascii()))?;
        let asked = matches!(query.query_type(), RecordType::A | RecordType::ANY);
        Some(question.with(ResponseCode::NoError, true, asked.then_some(address)))
    }
}

fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
