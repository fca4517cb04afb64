# A fake of apache/kafka: its jars, its user, its volume, and its properties from the environment.
ARG BASE
FROM ${BASE}
COPY java /opt/java
COPY program /opt/kafka/libs
COPY run_kafka.py /etc/kafka/docker/run
COPY --chown=1000:1000 empty /opt/kafka/config
COPY --chown=1000:1000 empty /var/lib/kafka/data
USER 1000:1000
EXPOSE 9092
VOLUME /var/lib/kafka/data
CMD ["python3", "/etc/kafka/docker/run"]
