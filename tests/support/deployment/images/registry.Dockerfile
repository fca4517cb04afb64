# A fake of apicurio/apicurio-registry: its program, which reads its settings from the environment, and its user.
ARG BASE
FROM ${BASE}
COPY java /opt/java
COPY program /deployments
USER 1001
EXPOSE 8080
CMD ["/opt/java/bin/java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-Dquarkus.http.host=0.0.0.0", "-jar", "/deployments/quarkus-run.jar"]
