"""Load test of the service: many clients, writes and new versions at a time, every kind of answer checked."""
