# On a host under test: what one needs to see when a test has failed.
section() {
  echo "== $1"
  shift
  "$@" 2>&1 | tail -n 30
}

section "failed units" systemctl --failed --no-legend --plain
section "journal of nginx, the applications and certificates" \
  journalctl --no-pager --output short-iso --unit nginx --unit 'portico-*' --unit 'certbot*' --unit 'certificates-*'
section "nginx's error log" cat /var/log/nginx/error.log
section "nginx's test of its configuration" nginx -t
# Between the lines of DEBUG are whole requests and certificates.
section "certbot's log" grep -vE 'DEBUG|^[A-Za-z0-9+/=_-]{40,}$' /var/log/letsencrypt/letsencrypt.log
