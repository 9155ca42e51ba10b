# Two stages: what builds stays behind; what runs has no torch, no compiler and no root.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY feature_store feature_store
COPY loadtest loadtest
COPY model_export model_export
COPY service service
COPY training training
RUN python -m venv /opt/qin \
 && /opt/qin/bin/pip install --no-cache-dir -c constraints.txt ".[runtime]"

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home qin
COPY --from=build /opt/qin /opt/qin
ENV PATH=/opt/qin/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER qin
WORKDIR /srv
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=2s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=1)"]
ENTRYPOINT ["python", "-m", "service", "serve", "--host", "0.0.0.0"]
