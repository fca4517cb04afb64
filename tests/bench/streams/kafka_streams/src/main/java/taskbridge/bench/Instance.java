package taskbridge.bench;

import taskbridge.bench.stored.Marks;
import taskbridge.v1.TaskState;

/** The published state and the fold's marks; the fold changes both in place. */
record Instance(TaskState state, Marks marks) {}
