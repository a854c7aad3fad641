# In an image that is being built: use the Debian mirrors and proxies that the building machine uses.
set -eu
cd "$(dirname "$0")"
if [ -s sources.list ]; then
  rm -f /etc/apt/sources.list.d/debian.sources
  . /etc/os-release
  sed "s/RELEASE/$VERSION_CODENAME/" sources.list >/etc/apt/sources.list
fi
if [ -s apt.conf ]; then
  cp apt.conf /etc/apt/apt.conf.d/90building-machine
fi
