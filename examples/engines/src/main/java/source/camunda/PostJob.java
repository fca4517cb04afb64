package source.camunda;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import org.camunda.bpm.engine.ProcessEngineException;
import org.camunda.bpm.engine.impl.context.Context;
import org.camunda.bpm.engine.impl.interceptor.CommandContext;
import org.camunda.bpm.engine.impl.jobexecutor.JobHandler;
import org.camunda.bpm.engine.impl.jobexecutor.JobHandlerConfiguration;
import org.camunda.bpm.engine.impl.persistence.entity.ByteArrayEntity;
import org.camunda.bpm.engine.impl.persistence.entity.ExecutionEntity;
import org.camunda.bpm.engine.impl.persistence.entity.JobEntity;
import org.camunda.bpm.engine.impl.persistence.entity.MessageEntity;
import org.camunda.bpm.engine.repository.ResourceTypes;
import source.Bridge;

/** Posts one event to the bridge. The engine retries failures. */
final class PostJob implements JobHandler<PostJob.Body> {
    static final String TYPE = "taskbridge";
    private static final int TRIES = 10_000; // ten seconds apart: the bridge may be away for a day

    /** Where the event's text is stored: a job's configuration has room for only 4,000 characters. */
    record Body(String id) implements JobHandlerConfiguration {
        @Override
        public String toCanonicalString() {
            return id;
        }
    }

    private final Bridge bridge;

    PostJob(Bridge bridge) {
        this.bridge = bridge;
    }

    /** Stores the event in the current transaction. The job belongs to no instance, and so outlives it. */
    static void keep(CommandContext context, String event) {
        var text = new ByteArrayEntity(TYPE, event.getBytes(StandardCharsets.UTF_8), ResourceTypes.RUNTIME);
        context.getByteArrayManager().insertByteArray(text);
        var job = new MessageEntity();
        job.setJobHandlerType(TYPE);
        job.setJobHandlerConfiguration(new Body(text.getId()));
        job.setRetries(TRIES);
        context.getJobManager().send(job);
    }

    @Override
    public String getType() {
        return TYPE;
    }

    @Override
    public Body newConfiguration(String id) {
        return new Body(id);
    }

    @Override
    public void execute(Body body, ExecutionEntity execution, CommandContext context, String tenantId) {
        var text = context.getDbEntityManager().selectById(ByteArrayEntity.class, body.id());
        try {
            bridge.post(body.id(), new String(text.getBytes(), StandardCharsets.UTF_8)); // each try has the same id
        } catch (IOException e) {
            throw new ProcessEngineException("the bridge has not taken the event", e);
        }
    }

    @Override
    public void onDelete(Body body, JobEntity job) {
        Context.getCommandContext().getByteArrayManager().deleteByteArrayById(body.id());
    }
}
