//! The backend on Apache Kafka.
