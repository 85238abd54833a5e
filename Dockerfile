# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin fathom \
    && install -D target/release/fathom /out/fathom

# The certificates of the public authorities are part of the program; nothing else is needed but the C library.
FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/fathom --create-home fathom
COPY --from=build /out/fathom /usr/local/bin/fathom
COPY config/production.toml /etc/fathom/fathom.toml
USER fathom
VOLUME /var/lib/fathom
EXPOSE 8000
# SIGTERM drains and flushes; see supervision.shutdown_deadline_ms.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200'"]
ENTRYPOINT ["fathom"]
CMD ["run", "--config", "/etc/fathom/fathom.toml"]
