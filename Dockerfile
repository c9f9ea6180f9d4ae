# The server in an image: built in one stage, shipped in another without the compiler.

FROM rust:1-slim-bookworm AS build
WORKDIR /build

# For the allocator, which is written in C.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*

# The dependencies, in a layer that stands until they change. Cargo wants a crate to build them for.
COPY Cargo.toml Cargo.lock build.rs ./
COPY crates crates
RUN mkdir -p src/bin/rusty_socks clients/js/src \
    && touch src/lib.rs clients/js/index.js \
    && echo 'fn main() {}' > src/bin/rusty_socks/main.rs \
    && cargo build --profile dist --locked --bin rusty_socks \
    && rm -r src clients

COPY src src
# The build script makes one file of it, which the program sends to pages.
COPY clients/js/index.js clients/js/index.js
COPY clients/js/src clients/js/src
# The copied files may be older than what was built of the stand-ins, and cargo goes by the time.
RUN touch src/lib.rs src/bin/rusty_socks/main.rs clients/js/index.js \
    && cargo build --profile dist --locked --bin rusty_socks


# The C library that it was built with, and no shell.
FROM gcr.io/distroless/cc-debian12
COPY --from=build /build/target/dist/rusty_socks /usr/local/bin/rusty_socks
# By number, so that a cluster can see that it is not root.
USER 10001:10001

# `docker stop` kills after 10 seconds; a drain should be over by then. With a longer grace, set both.
ENV RUSTY_SOCKS_DRAIN_TIMEOUT=8

EXPOSE 3030
STOPSIGNAL SIGTERM
# Asks the port that the environment says, so set it there and not by a flag.
HEALTHCHECK --interval=10s --timeout=3s --start-period=3s --retries=3 CMD ["rusty_socks", "health"]
ENTRYPOINT ["rusty_socks"]
