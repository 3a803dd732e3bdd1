"""What is measured, a file per kind of work.

Each file has `measure(scratch, **case)`, which returns raw numbers: seconds, bytes, counts, and lists of them where a
case is a curve. Imports and set-up stay outside of what it times. A file may have `prepare(scratch, **case)`, which is
run once before, in a process of its own: what it leaves in `scratch`, a folder that all cases of a row share and that
may be kept from the time before, costs the measured process no memory.
"""
