"""Measurements that anyone can rerun: settings in, JSON out, tables and plots derived from it."""
