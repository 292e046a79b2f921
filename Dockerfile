# The agent and nothing else: a static program needs no system around it. It brings its own certificate authorities; a
# private one is mounted and named by SINDRI_AGENT_CA_FILE.
#
# It is built from the files of a release, so that the image holds the very bytes that were tested and attested:
#   mkdir -p dist; (sindri-agent-linux-amd64 and sindri-agent-linux-arm64 into it)
#   docker buildx build --platform linux/amd64,linux/arm64 .
# A session in this image has no shell to open. To give terminals to another image's system, copy the program there:
#   COPY --from=ghcr.io/pacphi/draupnir /sindri-agent /usr/local/bin/sindri-agent
FROM scratch
ARG TARGETARCH
LABEL org.opencontainers.image.title="Draupnir" \
      org.opencontainers.image.description="The agent on every instance: one WebSocket to the console" \
      org.opencontainers.image.source="https://github.com/pacphi/draupnir" \
      org.opencontainers.image.licenses="MIT"
COPY --chmod=0755 dist/sindri-agent-linux-${TARGETARCH} /sindri-agent
ENV HOME=/
# User 65534 of the image: a container that needs root must say so with --user.
USER 65534:65534
STOPSIGNAL SIGTERM
# Whether the agent works, not whether it reaches the console: an outage of the console makes nothing unhealthy.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s CMD ["/sindri-agent", "health"]
ENTRYPOINT ["/sindri-agent"]
