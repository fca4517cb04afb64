package source.camunda;

import java.time.Duration;
import java.util.Date;
import java.util.List;
import org.camunda.bpm.engine.impl.cfg.AbstractProcessEnginePlugin;
import org.camunda.bpm.engine.impl.cfg.ProcessEngineConfigurationImpl;
import org.camunda.bpm.engine.impl.cmd.DefaultJobRetryCmd;
import org.camunda.bpm.engine.impl.interceptor.CommandContext;
import org.camunda.bpm.engine.impl.util.ClockUtil;
import source.Bridge;

/** Lets an engine report its tasks and process instances to the bridge. */
public final class Taskbridge extends AbstractProcessEnginePlugin {
    private final Bridge bridge;
    private final Duration pause;

    /** An event that the bridge has not accepted is posted again after a pause. */
    public Taskbridge(Bridge bridge, Duration pause) {
        this.bridge = bridge;
        this.pause = pause;
    }

    @Override
    public void preInit(ProcessEngineConfigurationImpl configuration) {
        configuration.getCustomHistoryEventHandlers().add(new TaskEvents());
        configuration.setCustomJobHandlers(List.of(new PostJob(bridge)));
        configuration.setFailedJobCommandFactory(Again::new);
    }

    /** By default the engine retries at once, until no retries are left. */
    private final class Again extends DefaultJobRetryCmd {
        Again(String jobId, Throwable failure) {
            super(jobId, failure);
        }

        @Override
        protected void executeStandardStrategy(CommandContext context) {
            super.executeStandardStrategy(context);
            var job = getJob();
            if (job != null && PostJob.TYPE.equals(job.getJobHandlerType())) {
                job.setDuedate(Date.from(ClockUtil.getCurrentTime().toInstant().plus(pause)));
            }
        }
    }
}
