//! Reflection, v1 and v1alpha (grpcurl speaks only the latter), with the
//! google.rpc types, without which clients cannot show error details.

use tonic_reflection::server::{Builder, Error};

/// A builder that lists `names` and knows the types of `sets`.
pub(crate) fn builder<'a>(sets: &[&'a [u8]], names: &[String]) -> Builder<'a> {
    let mut builder = Builder::configure()
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    for set in sets {
        builder = builder.register_encoded_file_descriptor_set(set);
    }
    // Naming services switches off the listing of everything that is known: a
    // descriptor set holds more services than one server serves.
    for name in names {
        builder = builder.with_service_name(name);
    }
    builder
}

pub(crate) type ReflectionError = Error;
