# Two stages: the image that runs has no build tools, no torch and no root user. The service writes
# below /tmp alone, so the root file system may be read-only.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/qin
COPY pyproject.toml constraints.txt README.md ./
# Dependencies first: they change less often than the code.
RUN mkdir service && touch service/__init__.py \
 && /opt/qin/bin/pip install --no-cache-dir -c constraints.txt ".[runtime,text,tracing]" \
 && /opt/qin/bin/pip uninstall --yes qin-serving && rm -r service
COPY batch batch
COPY feature_store feature_store
COPY model_export model_export
COPY loadtest loadtest
COPY service service
COPY text text
RUN /opt/qin/bin/pip install --no-cache-dir --no-deps . \
 && /opt/qin/bin/python -m compileall -q /opt/qin

FROM python:3.13-slim
# A login shell (bash -l) begins with Debian's PATH, which has a Python without these packages.
RUN useradd --system --uid 10001 --no-create-home qin \
 && echo 'PATH=/opt/qin/bin:$PATH' > /etc/profile.d/qin.sh
COPY --from=build /opt/qin /opt/qin
ENV PATH=/opt/qin/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    QIN_HOST=0.0.0.0 \
    QIN_BUNDLE=/srv/models \
    QIN_PRIVATE=/tmp/private
USER 10001:10001
WORKDIR /srv
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
  CMD ["python", "-m", "service", "probe"]
ENTRYPOINT ["python", "-m", "service", "serve"]
