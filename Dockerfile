# One image for every service; the command says which one runs.
FROM python:3.11-slim AS build
WORKDIR /source
COPY . .
RUN python -m venv /antiphon && /antiphon/bin/pip install --no-cache-dir '.[gateway,model,ray]'

FROM python:3.11-slim
COPY --from=build /antiphon /antiphon
RUN useradd --uid 10001 --create-home antiphon
USER antiphon
ENV PATH=/antiphon/bin:$PATH RAY_USAGE_STATS_ENABLED=0
ENTRYPOINT ["python", "-m", "services"]
