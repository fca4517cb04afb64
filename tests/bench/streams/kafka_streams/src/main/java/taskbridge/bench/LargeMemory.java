package taskbridge.bench;

import java.util.Map;
import org.apache.kafka.streams.state.RocksDBConfigSetter;
import org.rocksdb.Options;

/** A variant: a memtable of 64 MiB rather than 16 for each of the twelve stores, and two threads for what is flushed. */
public final class LargeMemory implements RocksDBConfigSetter {
    @Override
    public void setConfig(String store, Options options, Map<String, Object> settings) {
        options.setWriteBufferSize(64 << 20);
        options.setMaxBackgroundJobs(2);
    }

    @Override
    public void close(String store, Options options) {}
}
