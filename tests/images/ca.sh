# In an image that is being built: trust the CAs that the building machine trusts besides the public
# ones. pip brings its own list of CAs, and Debian's pip the system's: one line makes them agree.
set -eu
cd "$(dirname "$0")"
if [ -d ca ]; then
  cp ca/*.crt /usr/local/share/ca-certificates/
  update-ca-certificates
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >/etc/pip.conf
fi
