import io.camunda.zeebe.client.ZeebeClient;
import io.camunda.zeebe.model.bpmn.Bpmn;
import io.camunda.zeebe.process.test.api.ZeebeTestEngine;
import io.camunda.zeebe.process.test.engine.EngineFactory;
import io.camunda.zeebe.protocol.impl.record.RecordMetadata;
import io.camunda.zeebe.protocol.impl.record.UnifiedRecordValue;
import io.camunda.zeebe.protocol.impl.record.value.usertask.UserTaskRecord;
import io.camunda.zeebe.protocol.record.RecordType;
import io.camunda.zeebe.protocol.record.ValueType;
import io.camunda.zeebe.protocol.record.intent.UserTaskIntent;
import io.camunda.zeebe.protocol.record.value.BpmnElementType;
import io.camunda.zeebe.protocol.record.value.ProcessInstanceRecordValue;
import io.camunda.zeebe.protocol.record.value.UserTaskRecordValue;
import java.net.URI;
import java.time.Duration;
import java.util.List;

/** Prints what an engine exports: see zeebe-records.md. */
public final class ZeebeRecords {
    private static final int PORT = 26510;
    private static final Duration PATIENCE = Duration.ofSeconds(20);

    public static void main(String[] args) throws Exception {
        var engine = EngineFactory.create(PORT);
        engine.start();
        var client = ZeebeClient.newClientBuilder()
                .grpcAddress(URI.create("http://127.0.0.1:" + PORT)).preferRestOverGrpc(false).usePlaintext().build();
        var process = Bpmn.createExecutableProcess("leave").startEvent()
                .parallelGateway("fork").userTask("approve", t -> t.zeebeUserTask().zeebeAssignee("kermit"))
                .parallelGateway("join").endEvent().moveToNode("fork")
                .userTask("check", t -> t.zeebeUserTask().zeebeCandidateUsers("gonzo,fozzie"))
                .connectTo("join").done();
        client.newDeployResourceCommand().addProcessModel(process, "leave.bpmn").send().join();

        var first = start(engine, client);
        long approve = task(engine, first, "approve");
        long check = task(engine, first, "check");
        write(engine, UserTaskIntent.CLAIM, check, new UserTaskRecord().setAssignee("gonzo").setAction("claim"));
        write(engine, UserTaskIntent.UPDATE, approve, new UserTaskRecord()
                .setCandidateUsersList(List.of("animal")).setCandidateUsersChanged().setAction("update"));
        write(engine, UserTaskIntent.COMPLETE, check, new UserTaskRecord().setAction("complete"));
        write(engine, UserTaskIntent.ASSIGN, approve, new UserTaskRecord().setAssignee("rowlf").setAction("assign"));
        write(engine, UserTaskIntent.ASSIGN, approve, new UserTaskRecord().setAssignee("").setAction("unassign"));
        write(engine, UserTaskIntent.COMPLETE, approve, new UserTaskRecord().setAction("complete"));
        client.newCancelInstanceCommand(start(engine, client)).send().join();
        engine.waitForIdleState(PATIENCE);

        for (var record : engine.getRecordStreamSource().getRecords()) {
            if (record.getRecordType() == RecordType.EVENT
                    && (record.getValueType() == ValueType.USER_TASK
                            || record.getValue() instanceof ProcessInstanceRecordValue value
                                    && value.getBpmnElementType() == BpmnElementType.PROCESS)) {
                System.out.println(record.toJson());
            }
        }
        System.exit(0);
    }

    private static long start(ZeebeTestEngine engine, ZeebeClient client) throws Exception {
        var begun = client.newCreateInstanceCommand().bpmnProcessId("leave").latestVersion().send().join();
        engine.waitForIdleState(PATIENCE);
        return begun.getProcessInstanceKey();
    }

    private static long task(ZeebeTestEngine engine, long instance, String element) {
        for (var record : engine.getRecordStreamSource().getRecords()) {
            if (record.getValue() instanceof UserTaskRecordValue value
                    && value.getProcessInstanceKey() == instance && value.getElementId().equals(element)) {
                return value.getUserTaskKey();
            }
        }
        throw new IllegalStateException(element);
    }

    private static void write(ZeebeTestEngine engine, UserTaskIntent intent, long task, UserTaskRecord value)
            throws Exception {
        var writer = fieldOf(fieldOf(engine, "gateway"), "writer");
        var write = writer.getClass().getDeclaredMethod(
                "writeCommandWithKey", Long.class, UnifiedRecordValue.class, RecordMetadata.class);
        write.setAccessible(true);
        write.invoke(writer, task, value.setUserTaskKey(task), new RecordMetadata()
                .recordType(RecordType.COMMAND).valueType(ValueType.USER_TASK).intent(intent));
        engine.waitForBusyState(PATIENCE);
        engine.waitForIdleState(PATIENCE);
    }

    private static Object fieldOf(Object owner, String name) throws Exception {
        var field = owner.getClass().getDeclaredField(name);
        field.setAccessible(true);
        return field.get(owner);
    }
}
