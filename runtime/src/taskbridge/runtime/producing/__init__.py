"""Sends records one by one and tells when Kafka has each."""
