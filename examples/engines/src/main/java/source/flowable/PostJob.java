package source.flowable;

import java.io.IOException;
import org.flowable.common.engine.api.FlowableException;
import org.flowable.common.engine.impl.interceptor.CommandContext;
import org.flowable.job.service.JobHandler;
import org.flowable.job.service.impl.persistence.entity.JobEntity;
import org.flowable.variable.api.delegate.VariableScope;
import source.Bridge;

/** Posts one event to the bridge. The engine retries failures. */
public final class PostJob implements JobHandler {
    static final String TYPE = "taskbridge";

    private final Bridge bridge;

    public PostJob(Bridge bridge) {
        this.bridge = bridge;
    }

    @Override
    public String getType() {
        return TYPE;
    }

    @Override
    public void execute(JobEntity job, String configuration, VariableScope scope, CommandContext context) {
        try {
            bridge.post(job.getCorrelationId(), job.getCustomValues()); // each try has the same id
        } catch (IOException e) {
            throw new FlowableException("the bridge has not taken the event", e);
        }
    }
}
