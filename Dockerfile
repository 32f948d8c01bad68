# The image: one static binary and the public CAs on nothing at all.
#
#   docker build -t rename-worker .     compiles inside Docker (the last stage)
#   make image                          packs a binary compiled outside (the stage `prebuilt`)
#
# Both begin with `base`, so that they differ in nothing but where the binary was compiled.
#
# `base` is empty, so the image has no base image to pin. What compiles inside Docker is named by its tag
# below, and a tag can move; a release pins it by its digest (docs/operations.md, Image):
#
#   docker build --build-arg BUILD_IMAGE=rust:1.95-alpine@sha256:… -t rename-worker .
ARG BUILD_IMAGE=rust:1.95-alpine

FROM scratch AS base
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="rename-worker" \
      org.opencontainers.image.description="Consumes rename requests from RabbitMQ, performs Dintero's change_username, and publishes the result of each" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.source="https://github.com/rename-worker/rename-worker" \
      org.opencontainers.image.documentation="https://github.com/rename-worker/rename-worker/blob/main/docs/operations.md" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
# Where TLS looks for public CAs; a private one is a setting (amqp.ca_file, api.ca_file).
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# A number, since there is no /etc/passwd: Kubernetes' runAsNonRoot can check it.
USER 65532:65532
# What admin.listen is usually set to in a container; its default is loopback.
EXPOSE 9090
ENTRYPOINT ["/rename-worker"]
CMD ["run"]

# Its context is target/image, made by scripts/image.sh.
FROM base AS prebuilt
COPY rename-worker /rename-worker
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

# Alpine's own target is musl, so cargo links statically there without being told.
FROM ${BUILD_IMAGE} AS build
RUN apk add --no-cache ca-certificates musl-dev
WORKDIR /src
COPY . .
ARG REVISION=unknown
RUN RENAME_WORKER_REVISION="$REVISION" cargo build --release --locked --bin rename-worker

FROM base
COPY --from=build /src/target/release/rename-worker /rename-worker
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
