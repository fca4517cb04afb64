"""What the image postgres does at its start, as far as it is used: a database for a user with a password."""

import os
import subprocess
from pathlib import Path

DATA = Path("/var/lib/postgresql/18/docker")
PASSWORD = DATA.parent / "password"
USER = os.environ["POSTGRES_USER"]

if not (DATA / "PG_VERSION").exists():
    DATA.mkdir(parents=True, exist_ok=True)
    PASSWORD.write_text(os.environ["POSTGRES_PASSWORD"])
    made = ("initdb", "--pgdata", str(DATA), "--username", USER, "--pwfile", str(PASSWORD), "--auth", "scram-sha-256")
    subprocess.run((*made, "--encoding=UTF8", "--locale=C"), check=True)
    single = ("postgres", "--single", "-D", str(DATA), "postgres")
    subprocess.run(single, input=f"CREATE DATABASE {USER};\n", text=True, check=True)
    with (DATA / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all scram-sha-256\n")
os.execvp("postgres", ("postgres", "-D", str(DATA), "-c", "listen_addresses=*", "-c", "unix_socket_directories="))  # noqa: S606  in its place
