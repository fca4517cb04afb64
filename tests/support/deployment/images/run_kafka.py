"""What apache/kafka does at its start, as far as it is used: properties from the environment, storage, the broker."""

import os
import re
import subprocess
from pathlib import Path

PROPERTIES = Path("/opt/kafka/config/server.properties")
SEPARATORS = {"_": ".", "__": "_", "___": "-"}
JAVA = ("/opt/java/bin/java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m", "-cp", "/opt/kafka/libs/*")

PROPERTIES.write_text(
    "".join(
        f"{re.sub('_+', lambda found: SEPARATORS[found[0]], name.removeprefix('KAFKA_').lower())}={value}\n"
        for name, value in os.environ.items()
        if name.startswith("KAFKA_")
    )
)
cluster = f"--cluster-id={os.environ.get('CLUSTER_ID', '5L6g3nShT-eMCtK--X86sw')}"
formatted = (*JAVA, "kafka.tools.StorageTool", "format", "--ignore-formatted", cluster, "-c", str(PROPERTIES))
if not Path(os.environ["KAFKA_LOG_DIRS"], "meta.properties").exists():  # a JVM less for each start after the first
    subprocess.run(formatted, check=True)
os.execv(JAVA[0], (*JAVA, "kafka.Kafka", str(PROPERTIES)))  # noqa: S606  in its place
