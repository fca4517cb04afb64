"""How fast form data lands, and in how much memory: ``python tests/bench/land.py [INSTANCES [DIALECT]]``.

No Kafka: records are decoded and written in batches as a follower does. Each instance has ten fields and a sub-form of
two lines. PostgreSQL is of our own, and does not wait for its disk; SQLite is a file in a temporary folder.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.center import Databases
from support.landing import FORM, LandProcess, Source, new_target

BATCH = 1000
_SHOWN = 100_000
FIELDS = {
    **{f"textField_{at}": "TextField" for at in range(4)},
    **{f"numberField_{at}": "NumberField" for at in range(2)},
    "dateField_1": "DateField",
    "cascadeDateField_1": "CascadeDateField",
    "employeeField_1": "EmployeeField",
    "selectField_1": "SelectField",
    "tableField_1": "TableField",
    "tableField_1/textField_9": "TextField",
    "tableField_1/numberField_9": "NumberField",
}


def data_of(number: int) -> dict[str, object]:
    return {
        **{f"textField_{at}": f"text {number} of a field, as people write it" for at in range(4)},
        **{f"numberField_{at}": number for at in range(2)},
        "dateField_1": 1_700_000_000_000 + number,
        "cascadeDateField_1": [1_700_000_000_000, 1_700_000_100_000 + number],
        "employeeField_1": [f"name {number % 500}"],
        "employeeField_1_id": [f"user{number % 500}"],
        "selectField_1": f"option {number % 7}",
        "tableField_1": [{"textField_9": f"item {each}", "numberField_9": each} for each in range(2)],
    }


def main() -> None:
    instances = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with TemporaryDirectory() as folder:
        databases = Databases(Path(folder))
        for dialect in sys.argv[2:] or ("sqlite", "postgresql"):
            target, source = new_target(databases, dialect), Source()
            source.define(FIELDS)
            process = LandProcess(target, *source.topics)
            process.follow()
            spent, written, memory = 0.0, 0, 0
            while written < instances:
                source.values.records.clear()
                for _ in range(BATCH):
                    source.fill(f"instance-{written:08}", data_of(written))
                    written += 1
                messages = source.values.records
                began = time.perf_counter()
                process.write(messages)
                spent += time.perf_counter() - began
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
                if written % _SHOWN == 0:
                    print(f"{dialect}: {written} so far, {written / spent:.0f}/s, {memory} MiB", flush=True)  # noqa: T201
            with target.read() as connection:
                count = connection.exec_driver_sql("SELECT count(*) FROM landed").scalar_one()
            print(f"{dialect}: {count} instances of {FORM}, {count / spent:.0f}/s, {memory} MiB at most")  # noqa: T201
            target.close()
        databases.close()


if __name__ == "__main__":
    main()
