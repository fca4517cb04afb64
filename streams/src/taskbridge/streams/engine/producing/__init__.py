"""Writes transactions by way of aiokafka's client: one request a broker, over however many partitions they go."""
