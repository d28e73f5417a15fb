# A node in a container. As shipped it listens on every address, and without a password it serves only clients inside
# the container (protected mode): set KVORUM_REQUIREPASS, or KVORUM_PROTECTED_MODE=no on a private network.
#
#   docker build -t kvorum .
#   docker run -p 6379:6379 -e KVORUM_REQUIREPASS=secret -v kvorum-data:/data kvorum

FROM rust:1-trixie AS build
WORKDIR /source
# Dependencies first: they are built again only when the manifest changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests && echo '//! empty' > src/lib.rs && echo 'fn main() {}' > src/main.rs && echo '' > tests/main.rs \
    && for bench in $(sed -n 's|^path = "\(bench/.*\.rs\)"|\1|p' Cargo.toml); do \
           mkdir -p "$(dirname "$bench")" && echo 'fn main() {}' > "$bench"; done \
    && cargo build --release --locked
COPY . .
RUN touch src/lib.rs src/main.rs && cargo build --release --locked

FROM debian:trixie-slim
RUN useradd --system --uid 10001 --home-dir /data kvorum && install -d -o kvorum -g kvorum /data
COPY --from=build /source/target/release/kvorum /usr/local/bin/kvorum
COPY conf/kvorum.toml /etc/kvorum/kvorum.toml
ENV KVORUM_BIND=0.0.0.0 KVORUM_DATA_DIR=/data KVORUM_CONFIG=/etc/kvorum/kvorum.toml
USER kvorum
VOLUME /data
EXPOSE 6379 16379 7379
STOPSIGNAL SIGTERM
# Reads KVORUM_REQUIREPASS by itself.
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s CMD ["sh", "-c", "exec kvorum health --node 127.0.0.1:${KVORUM_PORT:-6379}"]
ENTRYPOINT ["kvorum"]
CMD ["server"]
