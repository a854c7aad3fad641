# On a host under test: make a repository of nginx as nginx.org's is, and serve it at http://127.0.0.1:8099.
#
# What runs is Debian's nginx, packed as the vendor packs it: one package with its own unit, user and default site, nothing of
# sites-enabled or modules-enabled, and a module (echo) that nobody loads. Its key is /srv/vendor/key.asc, and its fingerprint
# is printed; the key of a stranger is in it too, and alone in /srv/vendor/stranger.asc, and its fingerprint is printed after that.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
. /etc/os-release

upstream=1.29.3
version="$upstream-1~$VERSION_CODENAME"
work=$(mktemp -d /var/tmp/vendor.XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"

apt-get -qq update
apt-get -qq install --no-install-recommends gpg gpg-agent gpgconf apt-utils >/dev/null
apt-get -qq -o APT::Sandbox::User=root download nginx nginx-common libnginx-mod-http-echo
for package in nginx nginx-common libnginx-mod-http-echo; do
  dpkg-deb -R "$package"_*.deb "debian-$package"
done

package() { # NAME DEPENDS [FIELD...]
  local name=$1 depends=$2
  shift 2
  mkdir -p "$name/DEBIAN"
  printf '%s\n' "Package: $name" "Version: $version" "Architecture: $(dpkg --print-architecture)" \
    'Maintainer: Nobody <nobody@example.test>' "Depends: $depends" "$@" 'Description: nginx, packed as its vendor does' >"$name/DEBIAN/control"
}

# The program.
libraries=$(sed -n 's/^Depends: //p' debian-nginx/DEBIAN/control | sed 's/, nginx-common ([^)]*)//g')
package nginx "$libraries" "Provides: httpd, nginx-r$upstream" 'Conflicts: nginx-common, nginx-core' 'Replaces: nginx-common, nginx-core'
mkdir -p nginx/usr/sbin nginx/usr/lib/nginx/modules nginx/usr/lib/systemd/system nginx/var/log/nginx nginx/var/cache/nginx nginx/var/lib/nginx \
  nginx/usr/share/nginx/html nginx/etc/nginx/conf.d nginx/etc/logrotate.d
cp debian-nginx/usr/sbin/nginx nginx/usr/sbin/
ln -s /usr/lib/nginx/modules nginx/etc/nginx/modules
cp debian-nginx-common/etc/nginx/{mime.types,fastcgi_params,scgi_params,uwsgi_params} nginx/etc/nginx/
echo 'The page of nothing.' >nginx/usr/share/nginx/html/index.html

cat >nginx/etc/nginx/nginx.conf <<'END'
user  nginx;
worker_processes  auto;
error_log  /var/log/nginx/error.log notice;
pid        /run/nginx.pid;
events {
    worker_connections  1024;
}
http {
    include       /etc/nginx/mime.types;
    default_type  application/octet-stream;
    log_format  main  '$remote_addr "$request" $status';
    access_log  /var/log/nginx/access.log  main;
    sendfile        on;
    #tcp_nopush     on;
    keepalive_timeout  65;
    #gzip  on;
    include /etc/nginx/conf.d/*.conf;
}
END
cat >nginx/etc/nginx/conf.d/default.conf <<'END'
server {
    listen       80;
    server_name  localhost;
    location / {
        root   /usr/share/nginx/html;
        index  index.html index.htm;
    }
}
END
cat >nginx/etc/logrotate.d/nginx <<'END'
/var/log/nginx/*.log {
    daily
    missingok
    notifempty
    create 640 nginx adm
    sharedscripts
    postrotate
        if [ -f /run/nginx.pid ]; then kill -USR1 $(cat /run/nginx.pid); fi
    endscript
}
END
cat >nginx/usr/lib/systemd/system/nginx.service <<'END'
[Unit]
Description=nginx - high performance web server
After=network-online.target remote-fs.target nss-lookup.target
Wants=network-online.target

[Service]
Type=forking
PIDFile=/var/run/nginx.pid
Environment="CONFFILE=/etc/nginx/nginx.conf"
EnvironmentFile=-/etc/default/nginx
ExecStart=/usr/sbin/nginx -c ${CONFFILE}
ExecReload=/bin/sh -c "/bin/kill -s HUP $(/bin/cat /var/run/nginx.pid)"
ExecStop=/bin/sh -c "/bin/kill -s TERM $(/bin/cat /var/run/nginx.pid)"

[Install]
WantedBy=multi-user.target
END
(cd nginx && find etc -type f -printf '/%p\n') >nginx/DEBIAN/conffiles
cat >nginx/DEBIAN/preinst <<'END'
#!/bin/sh
set -e
getent passwd nginx >/dev/null || useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /bin/false nginx
END
cat >nginx/DEBIAN/postinst <<'END'
#!/bin/sh
set -e
for log in access error; do
  test -e /var/log/nginx/$log.log || install -m 640 -o nginx -g adm /dev/null /var/log/nginx/$log.log
done
systemctl daemon-reload
systemctl enable --quiet nginx
systemctl start nginx || true
END
cat >nginx/DEBIAN/prerm <<'END'
#!/bin/sh
set -e
if [ "$1" = remove ]; then systemctl stop nginx; fi
END
cat >nginx/DEBIAN/postrm <<'END'
#!/bin/sh
set -e
systemctl daemon-reload
if [ "$1" = purge ]; then systemctl disable --quiet nginx 2>/dev/null || true; rm -rf /var/log/nginx /var/cache/nginx /var/lib/nginx; fi
END
chmod 755 nginx/DEBIAN/{preinst,postinst,prerm,postrm}

# A module.
package nginx-module-echo "nginx-r$upstream"
mkdir -p nginx-module-echo/usr/lib/nginx/modules
cp debian-libnginx-mod-http-echo/usr/lib/nginx/modules/ngx_http_echo_module.so nginx-module-echo/usr/lib/nginx/modules/
cp nginx-module-echo/usr/lib/nginx/modules/ngx_http_echo_module{,-debug}.so

# The repository.
root=/srv/vendor/packages
rm -rf /srv/vendor
suite=dists/$VERSION_CODENAME
binary=$suite/nginx/binary-$(dpkg --print-architecture)
mkdir -p $root/pool "$root/$binary"
for name in nginx nginx-module-echo; do
  dpkg-deb --root-owner-group -b "$name" $root/pool >/dev/null
done
(
  cd $root
  apt-ftparchive packages pool >"$binary/Packages"
  apt-ftparchive -o APT::FTPArchive::Release::Origin=nginx -o "APT::FTPArchive::Release::Suite=$VERSION_CODENAME" \
    -o "APT::FTPArchive::Release::Codename=$VERSION_CODENAME" -o APT::FTPArchive::Release::Components=nginx release "$suite" >"$work/Release"
)
mv "$work/Release" "$root/$suite/Release"
export GNUPGHOME=$work/gnupg
mkdir -m 700 "$GNUPGHOME"
for who in vendor stranger; do
  gpg --batch --quiet --passphrase '' --quick-generate-key "$who <$who@example.test>" ed25519 sign never 2>/dev/null
done
gpg --batch --quiet --local-user vendor --digest-algo SHA512 --clearsign --output "$root/$suite/InRelease" "$root/$suite/Release"
gpg --armor --export vendor stranger >/srv/vendor/key.asc
gpg --armor --export stranger >/srv/vendor/stranger.asc
gpg --with-colons --fingerprint vendor stranger 2>/dev/null | sed -n 's/^fpr:*\([0-9A-F]*\):/\1/p'
gpgconf --kill all

systemctl --quiet is-active vendor-repository || systemd-run --quiet --unit vendor-repository python3 -m http.server --bind 127.0.0.1 --directory /srv/vendor 8099
for _attempt in $(seq 50); do
  curl --silent --fail http://127.0.0.1:8099/key.asc >/dev/null && exit 0
  sleep 0.1 # a server that sends no word when it listens
done
exit 1
