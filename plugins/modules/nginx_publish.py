#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_publish
short_description: Publish nginx's configuration, all sites in one step
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - Asks the host once what it has and what it serves, renders nginx's whole configuration on the controller, and
    sends it only if something differs. An unchanged run is one remote call, for one site and for a thousand.
  - On the host the new configuration is written beside the old one and tested by nginx, and one symlink is moved;
    then nginx reloads and is asked which configuration it runs, because it can refuse one without a word. If it
    refuses, the old configuration stays, or comes back, and the task fails in nginx's own words.
  - What other people have in C(conf.d), C(sites-enabled) and C(snippets) goes on as before. A default server or a
    directive of the http level that is there already counts, and ours gives way.
  - Settings that there is one of for the whole host (O(http_port), O(https_port), O(trusted_proxies), O(proxy_protocol), O(tls_profile), O(http3),
    O(sandbox), O(resolvers), O(repository), O(modules), O(access_log), O(extra_config)) belong to the scope
    that sets them to something else than their defaults. A second scope that does so is refused.
  - A site with O(sites[].tls) is served with its certificate, and with a self-signed placeholder until there is one.
    With the placeholder nothing permanent is sent (no 301, no HSTS) and the site works on the plain port too.
    Which of the two it is lies beside the certificate, so that a certificate's arrival changes no configuration.
options:
  sites:
    description:
      - The sites of this scope.
      - Each needs exactly one of O(sites[].app), O(sites[].upstream), O(sites[].proxy), O(sites[].root), O(sites[].alias),
        O(sites[].redirect), O(sites[].answer) and O(sites[].locations).
      - What a site says of body sizes, timeouts, buffering, backends and headers holds for each of its O(sites[].locations)
        that does not say something else.
      - A site that is no longer in the list is no longer served.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - What this site is called in messages, in its file's name, and (unless O(sites[].certificate) says
            otherwise) in its certificate's.
          - Letters, digits, dots, underscores and hyphens; at most 64 of them.
        type: str
        required: true
      server_names:
        description:
          - The host names that the site answers to. The first is the canonical one; the others redirect to it.
          - A name may begin with C(*.); such a name cannot be the canonical one.
          - A name in other letters than ASCII is written in its C(xn--) form.
        type: list
        elements: str
        required: true
      app:
        description:
          - The name of an app of O(apps) that answers, at the path C(/).
          - Its static folders are served by nginx itself.
          - Websockets are led on to it, and no other protocol. nginx waits 60 seconds for its next word, or longer where the app's
            own C(timeout) is. C(proxy_read_timeout) in an C(extra_config) says something else.
        type: str
      upstream:
        description:
          - The name of an upstream of O(upstreams), several servers of which one answers, at the path C(/).
          - Websockets are led on to it, as to an O(sites[].app).
        type: str
      proxy:
        description:
          - The URL of a server that answers, such as V(http://127.0.0.1:8000), V(https://backend.example.com), or
            V(http://unix:/run/wiki.sock) for one that listens at a unix socket.
          - One that speaks another protocol is written V(fastcgi://127.0.0.1:9000), V(grpc://127.0.0.1:50051), V(uwsgi://127.0.0.1:3031), or
            with V(unix:/run/wiki.sock) behind the slashes; V(grpcs://) and V(suwsgi://) are those over TLS.
          - A path in the URL, which there is with HTTP alone, replaces the location's path, as nginx's own C(proxy_pass) does it. Both end with a slash, so that
            nobody is led out of it. A socket's stands behind a colon, as in V(http://unix:/run/wiki.sock:/wiki/).
          - The certificate of a server over TLS is verified; O(sites[].backend) says by what.
          - Websockets are led on to it, as to an O(sites[].app).
        type: str
      root:
        description: An absolute path on the host. nginx serves the files below it.
        type: str
      alias:
        description:
          - An absolute path on the host. nginx serves the files below it, and the location's path is not part of theirs,
            so that at V(/media/) the file of V(/media/a.png) is C(alias)/a.png.
          - The path of such a location ends with a slash. Without it nginx would lead visitors out of the folder
            (C(/media../)).
        type: str
      fallback:
        description:
          - The file below O(sites[].root) that is served where that has none of the path that is asked for, such as
            V(/index.html) for an application of a single page, which finds its way itself.
          - Without it, or where there is no such file, the answer is 404.
        type: str
      immutable:
        description:
          - Whether the files of O(sites[].root) or O(sites[].alias) never change under their names, as those that a bundler makes.
            Browsers then keep them for a year, and do not ask again.
          - If not given, it is found out file by file, by a hash of hexadecimal digits in the name, as in V(site.9ae1f9c10fb5.css).
            With V(false) nothing is said of it.
        type: bool
      uploads:
        description:
          - Whether visitors have brought the files of O(sites[].root) or O(sites[].alias). They are shown, and no script in
            them runs.
        type: bool
      redirect:
        description:
          - An absolute URL that visitors are sent to.
          - With no path, as in V(https://example.com), the visitor's path and query are kept; with a path, everybody
            is sent to exactly that address.
        type: str
      answer:
        description: A fixed answer, for what needs no application.
        type: dict
        suboptions: &answer
          status:
            description: Its status. Redirects are made by C(redirect).
            type: int
            default: 200
          text:
            description: Its body. From status 400 on, nginx answers with a page of its own where it is empty.
            type: str
            default: ""
          content_type:
            description: What the body is.
            type: str
            default: text/plain; charset=utf-8
      locations:
        description: What the site does, path by path, when one answer for all of it is not enough.
        type: list
        elements: dict
        suboptions:
          path:
            description: The beginning of the paths that this location answers, such as V(/) or V(/api/), as it is read and not percent-encoded.
            type: str
            required: true
          exact:
            description: Whether it answers this path alone, and not those that begin with it.
            type: bool
            default: false
          app:
            description: As O(sites[].app), for this path. The app's static folders come along.
            type: str
          upstream:
            description: As O(sites[].upstream), for this path.
            type: str
          proxy:
            description: As O(sites[].proxy), for this path.
            type: str
          root:
            description: As O(sites[].root), for this path, which is kept, so that V(/media/a.png) is C(root)/media/a.png.
            type: str
          alias:
            description: As O(sites[].alias), for this path, which is not kept.
            type: str
          fallback:
            description: As O(sites[].fallback), for this path.
            type: str
          immutable:
            description: As O(sites[].immutable), for this path.
            type: bool
          uploads:
            description: As O(sites[].uploads), for this path.
            type: bool
          redirect:
            description: As O(sites[].redirect), for this path.
            type: str
          answer:
            description: As O(sites[].answer), for this path.
            type: dict
            suboptions: *answer
          max_body_size: &max_body_size
            description:
              - The largest body that a visitor may send, such as V(100m) for uploads, in bytes or with C(k), C(m) or C(g). V(0) is
                no limit.
              - If neither a location nor its site says it, it is 16 megabytes.
            type: str
          timeout: &timeout
            description:
              - For how many seconds a backend may take for the next word of its answer, and nginx for handing on a request.
              - If not given, 60, or what the app's own C(timeout) needs.
            type: int
          unbuffered: &unbuffered
            description:
              - What is passed on as it comes, and not only when nginx has all of it or a good part.
              - V(answers) is for server-sent events and other streams. An application that knows which answers are streams
                sends C(X-Accel-Buffering) with the value V(no) with them, and needs no key.
              - V(requests) is for backends that read large uploads while they arrive. Such a backend waits for slow visitors itself. It is
                not possible with FastCGI and uwsgi, whose applications are told first how long a body is, nor needed with gRPC.
            type: list
            elements: str
            choices: [answers, requests]
          backend: &backend
            description: How a backend that O(sites[].proxy) names is spoken to. O(upstreams) has the same keys.
            type: dict
            suboptions:
              host:
                description: The host name that the backend is asked for. If not given, the one that the visitor asked for.
                type: str
              verify:
                description: Whether the certificate of a backend that is spoken to over TLS is verified. If not given, it is.
                type: bool
              ca:
                description:
                  - A file on the host with the CA certificates that verify it.
                  - If not given, those that the host trusts.
                type: str
              certificate_name:
                description: The name that its certificate is to have. If not given, O(sites[].backend.host), or the host in the URL.
                type: str
              resolve:
                description:
                  - Whether the host in the URL is looked up again while nginx runs, as often as its DNS says, by O(resolvers). nginx then
                    starts without it too, and keeps no connections open to it.
                  - If not given, it is looked up when nginx starts and when it reloads, and has to be there.
                type: bool
              script:
                description:
                  - The file on the host that a FastCGI server runs, whatever is asked for, such as V(/srv/shop/public/index.php). No other
                    file is ever run.
                  - If not given, the application behind it is asked, as one of C(flup) is.
                type: str
          access: &access
            description:
              - The name of an access policy of O(access), which says who gets in. Others are refused.
              - V(everybody) and V(nobody) need not be in the list. If neither a location nor its site says it, everybody gets in.
              - The ACME challenge is open whatever is said here.
            type: str
          limits: &limits
            description:
              - The names of limits of O(limits), which say how often somebody may ask. Those of a location count beside its
                site's; with an empty list none counts.
              - V(login), V(api) and V(everything) need not be in the list.
            type: list
            elements: str
          cache: &cache
            description:
              - The name of a cache of O(caches), which keeps answers of backends. C(X-Cache) tells visitors whether one came from it.
              - V(micro) need not be in the list; it keeps for a second what says nothing else, which is enough for a rush.
                V(none) keeps nothing at a path of a site that has a cache.
              - What a visitor who is known gets (C(Authorization), cookies) is neither kept nor taken from it, nor are answers with
                C(Set-Cookie), C(Cache-Control) of V(private) or V(no-store), and what is not asked for with C(GET) or C(HEAD).
            type: str
          access_log: &access_log
            description:
              - How requests are logged, into a file of the site's own, C(/var/log/nginx/NAME.log) (V(combined)) or
                C(/var/log/nginx/NAME.json.log) (V(json), with how long each step took), or not at all (V(none)).
              - If neither a location nor its site says it, it is O(access_log), into one file for all sites.
            type: str
            choices: [combined, json, none]
          headers: &headers
            description:
              - Headers that are sent with every answer, whatever its status, name to value. They replace what a backend sends
                under these names, and the safe ones that Portico sends by itself (C(X-Content-Type-Options), C(X-Frame-Options),
                C(Referrer-Policy)).
              - With an empty value none is sent by Portico, and a backend's is passed on.
              - Those of a location are added to its site's.
            type: dict
          hide_headers: &hide_headers
            description: Headers of a backend that visitors do not get, such as V(X-Powered-By). Those of a location are added to its site's.
            type: list
            elements: str
          csp: &csp
            description:
              - The C(Content-Security-Policy) that is sent with every answer, in place of a backend's.
              - If not given, a backend's is passed on, and none is sent for files. With an empty text a location sends none.
            type: str
          csp_report_only: &csp_report_only
            description: As C(csp), for C(Content-Security-Policy-Report-Only), with which browsers tell and do not refuse.
            type: str
          extra_config:
            description: As O(sites[].extra_config), inside this location.
            type: str
      max_body_size: *max_body_size
      timeout: *timeout
      unbuffered: *unbuffered
      backend: *backend
      access: *access
      limits: *limits
      cache: *cache
      access_log: *access_log
      error_pages:
        description:
          - Pages of the site's own for errors that nginx tells itself, such as 404 or 502. The status is the key, and the path of a
            file on the host the value.
          - An app's own answers are passed on, whatever their status. If not given, Portico's plain pages are shown.
        type: dict
      maintenance:
        description:
          - Lets the site be closed for a while. Visitors are told 503, with C(Retry-After) and a page that says so (that of
            O(sites[].error_pages) for V(503), if there is one).
          - It is closed while O(sites[].maintenance.active) is true, and while the file C(/var/lib/portico/maintenance/NAME) is
            there, which needs no play. The ACME challenge stays open.
        type: dict
        suboptions:
          active:
            description: Whether the site is closed.
            type: bool
            default: false
          allow:
            description: Addresses and networks that get in all the same.
            type: list
            elements: str
            default: []
          open:
            description: The beginnings of paths that stay open, such as V(/health).
            type: list
            elements: str
            default: []
          retry_after:
            description: After how many seconds visitors are told to come back.
            type: int
            default: 300
      refuse_agents:
        description:
          - Programs that get 403 and nothing else, by a part of what they call themselves (C(User-Agent)), such as V(SomeBot).
            Capitals make no difference. Who says something else gets in.
          - V(ai_crawlers) are those that gather texts for models, as their makers name them, and V(scanners) those that look for
            holes.
        type: list
        elements: str
      redirects:
        description:
          - What has moved on the site, path to where it leads, which is a URL or a path of the same site. The query goes along, unless that has one of its own.
          - It is answered before O(sites[].access) is looked at.
          - Capitals make no difference in the path that has moved.
        type: dict
      redirects_file:
        description:
          - A file on the controller, absolute or beside the playbook, with more of them, for hundreds and thousands. Each line has
            a path, a blank, and where it leads; one that begins with C(#) is passed over.
        type: str
      trailing_slash:
        description:
          - Whether visitors are led to the same path with a slash at its end (V(add), where its last name has no dot) or without one
            (V(remove)). If not given, the two are different paths, and what answers knows best.
        type: str
        choices: [add, remove]
      headers: *headers
      hide_headers: *hide_headers
      csp: *csp
      csp_report_only: *csp_report_only
      hsts:
        description:
          - What is promised to browsers that have visited the site over HTTPS (RFC 6797), which then ask for nothing else.
          - It is promised only with a certificate that browsers trust.
          - If not given, two years are promised where a backend promises nothing itself. If given, it counts instead of a
            backend's.
        type: dict
        suboptions:
          max_age:
            description: For how many seconds it holds. V(0) takes back what was promised before.
            type: int
            default: 63072000
          include_subdomains:
            description: Whether it holds for all names below the site's, too. Every one of them then needs HTTPS.
            type: bool
            default: false
          preload:
            description:
              - Whether browsers may be delivered with the promise (U(https://hstspreload.org)). There is no quick way back.
              - The list asks for O(sites[].hsts.include_subdomains) and a year at the least.
            type: bool
            default: false
      extra_config:
        description:
          - Directives of nginx that the site's server block gets at its end, for what has no key.
          - They are refused where they would close a block that they did not open, or leave one open. What they mean is
            nginx's to judge, which tests them before anything is changed.
        type: str
      template:
        description:
          - A Jinja2 template on the controller, absolute or beside the playbook, that makes the site's whole file instead of
            Portico's own.
          - C({{ expression }}) becomes one token of nginx, quoted where it must be; C(| bare) writes a part of a token, and
            C(| safe) plain text.
          - It sees C(site), C(host), C(http_port), C(https_port), the play's variables and Ansible's filters, and it can include
            Portico's templates, such as C(listen.conf.j2) and C(certificate.conf.j2).
          - What the site does need not be said then; with it, C(site.locations) has it. What else the site says is the
            template's to write, but for its certificate and its headers, which C(certificate.conf.j2) has.
        type: str
      tls:
        description: Whether the site is served over HTTPS, with plain HTTP redirecting to it.
        type: bool
        default: true
      certificate:
        description:
          - The name of the certificate that the site is served with. Sites may share one.
          - If not given, it is O(sites[].name).
        type: str
      issuer:
        description:
          - Who issues the site's certificate. Sites that share one say the same.
          - V(acme) is a CA that is asked over ACME.
          - V(own) is somebody else. You bring the certificate and its key in C(certbot_overrides) of the role
            P(portico.web.certbot#role).
          - V(self_signed) is the host itself, for hosts that no CA reaches. Browsers do not trust such a certificate, so that
            nothing permanent is sent to visitors (no 301, no HSTS).
        type: str
        choices: [acme, own, self_signed]
        default: acme
  upstreams:
    description: Backends of several servers each, that the sites of this scope may name.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What sites call it. Letters, digits, dots, underscores and hyphens; at most 64 of them.
        type: str
        required: true
      servers:
        description: Its servers.
        type: list
        elements: dict
        required: true
        suboptions:
          address:
            description: V(10.0.0.1:8000), V([2001:db8::1]:8000), V(backend.example.com:8000), or V(unix:/run/wiki.sock).
            type: str
            required: true
          weight:
            description: How many requests it gets for each that a server of weight 1 gets.
            type: int
            default: 1
          max_fails:
            description: After how many failed tries within O(upstreams[].servers[].fail_timeout) it is left alone. V(0) is never.
            type: int
            default: 1
          fail_timeout:
            description: For how many seconds failures are counted, and for how many it is then left alone.
            type: int
            default: 10
          max_connections:
            description: How many connections it gets at a time. V(0) is no limit.
            type: int
            default: 0
          backup:
            description: Whether it is asked only while no other answers.
            type: bool
            default: false
          down:
            description: Whether it is asked at all. It keeps its place, so that the others go on to get what they got.
            type: bool
            default: false
      balance:
        description:
          - Which server is asked next. With V(address) and V(uri) the same visitor, and the same path, always meet the same one,
            and few meet another when the servers change.
          - V(random) asks the less busy one of two at random, which is right where several nginx share the servers.
        type: str
        choices: [round_robin, least_connections, address, uri, random]
        default: round_robin
      keepalive:
        description:
          - How many idle connections each worker of nginx keeps open for the next request. V(0) is none.
          - If not given, 16 with HTTP and gRPC. The servers of other protocols give a worker to each connection, so that there is none.
        type: int
      tries:
        description:
          - How many servers are asked at the most, where one cannot be reached or does not answer in time.
          - What was posted to a server (C(POST), C(PATCH), C(LOCK)) is never sent to another. C(PUT) and C(DELETE) are, which
            mean the same when they come twice.
        type: int
        default: 3
      protocol:
        description: By which protocol its servers are spoken to.
        type: str
        choices: [http, fastcgi, grpc, uwsgi]
        default: http
      tls:
        description: Whether its servers are spoken to over TLS.
        type: bool
        default: false
      host:
        description: The host name that they are asked for. If not given, the one that the visitor asked for.
        type: str
      verify:
        description: Whether the certificates of servers with O(upstreams[].tls) are verified.
        type: bool
        default: true
      ca:
        description: A file on the host with the CA certificates that verify them. If not given, those that the host trusts.
        type: str
      certificate_name:
        description: The name that their certificates are to have. If not given, O(upstreams[].host).
        type: str
      resolve:
        description: Whether the names of its servers are looked up again while nginx runs. It needs nginx 1.27.3 or newer.
        type: bool
        default: false
      script:
        description: With O(upstreams[].protocol=fastcgi), the file that its servers run. If not given, they are applications.
        type: str
  access:
    description:
      - Access policies that sites of this scope may name, which say who gets in.
      - What one says is asked all together, unless it says O(access[].any).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What sites call it. Letters, digits, dots, underscores and hyphens; at most 64 of them.
        type: str
        required: true
      allow:
        description:
          - Addresses and networks that get in, such as V(192.0.2.7), V(192.0.2.0/24) or V(2001:db8::/32), and no others.
          - If not given, all but those of O(access[].deny).
        type: list
        elements: str
      deny:
        description: Addresses and networks that are refused, also where O(access[].allow) has them.
        type: list
        elements: str
      users:
        description: Who gets in with a password, which browsers ask for (RFC 7617).
        type: list
        elements: dict
        suboptions:
          name:
            description: The user's name. It has no colon in it.
            type: str
            required: true
          password:
            description: The password. It is hashed on the controller, and only its hash reaches the host.
            type: str
          password_hash:
            description:
              - A hash in its place, as C(mkpasswd) and C(htpasswd) make it. nginx works it out at each request, and answers nobody
                else meanwhile, so that one that takes long makes a site slow.
            type: str
      realm:
        description: What browsers show beside the question for a password.
        type: str
        default: Restricted
      any:
        description: Whether one is enough of an address of O(access[].allow), a password, and a yes of O(access[].ask).
        type: bool
        default: false
      clients:
        description: Client certificates that get in. Who has none is refused. It cannot be said together with O(access[].any).
        type: dict
        suboptions:
          ca:
            description: A file on the host with the CA certificates that issue them.
            type: str
            required: true
          crl:
            description: A file on the host with the certificates that were revoked, in PEM, of every CA in O(access[].clients.ca).
            type: str
          depth:
            description: How many CAs may stand between a client's certificate and one of the file.
            type: int
            default: 2
      ask:
        description:
          - A server that is asked at each request whether its visitor gets in, such as one that knows single sign-on
            (C(auth_request)). It gets the request's headers and no body.
        type: dict
        suboptions:
          url:
            description: Its URL, as O(sites[].proxy) has it. With status 2xx the visitor gets in, with 401 and 403 not.
            type: str
            required: true
          sign_in:
            description: Where visitors are sent who are told 401. The address that they asked for is put behind it.
            type: str
          headers:
            description:
              - Headers of its answer that the backend is told, such as V(X-Auth-Request-User). What visitors send under
                these names is taken out, in all of the site.
            type: list
            elements: str
  limits:
    description: Limits that sites of this scope may name, which say how often somebody may ask.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - What sites call it. Letters, digits, dots, underscores and hyphens; at most 64 of them.
          - One that is called V(login), V(api) or V(everything) takes the place of the one that is there by itself.
        type: str
        required: true
      requests:
        description: How many requests, by the second or the minute, such as V(10/s) or V(5/m).
        type: str
      burst:
        description: How many may come at once above that, without being made to wait.
        type: int
        default: 10
      connections:
        description:
          - How many connections at a time. With HTTP/2 and HTTP/3 each request in hand is one.
        type: int
      by:
        description: Whether each visitor's address is counted for itself, or all visitors of a site together.
        type: str
        choices: [address, site]
        default: address
      methods:
        description: The methods that count, such as V(POST). If not given, all do.
        type: list
        elements: str
      except:
        description: Addresses and networks that may ask as often as they like.
        type: list
        elements: str
      dry_run:
        description: Whether nothing is refused, and nginx's error log says what would have been.
        type: bool
        default: false
  caches:
    description: Caches that sites of this scope may name, in which nginx keeps answers of backends.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - What sites call it. Letters, digits, dots, underscores and hyphens; at most 64 of them.
          - One that is called V(micro) takes the place of the one that is there by itself.
        type: str
        required: true
      size:
        description: How large it grows at the most, as V(512m) or V(2g). What was not asked for longest makes room.
        type: str
        default: 512m
      keep:
        description: For how many seconds an answer is kept that nobody asks for.
        type: int
        default: 86400
      fresh:
        description:
          - For how many seconds an answer is fresh that says nothing of it (C(Cache-Control), C(Expires)), with status 200, 301 or
            302; that there is nothing (404), for ten at the most.
          - With V(0) only those are kept that say for how long.
        type: int
        default: 0
      stale:
        description: Whether an answer that is not fresh any more is given while a new one is being fetched, and while the backend fails.
        type: bool
        default: true
      private_cookies:
        description:
          - The names of cookies that tell a visitor who is known, such as V(sessionid); V(name*) is all that begin so. Visitors with
            others share what is kept.
          - If not given, whoever sends any cookie gets an answer of its own.
        type: list
        elements: str
  streams:
    description:
      - Whole connections of TCP, and datagrams of UDP, that nginx passes on without looking into them, such as those of a database.
      - nginx's package for it is installed where it is missing.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is called in messages and in its file's name. Letters, digits, dots, underscores and hyphens; at most 64 of them.
        type: str
        required: true
      port:
        description: The port at which nginx listens.
        type: int
        required: true
      address:
        description: The address of the host at which it listens. If not given, all of them.
        type: str
      protocol:
        description: Whether it is connections or datagrams.
        type: str
        choices: [tcp, udp]
        default: tcp
      proxy:
        description: Where it leads, as V(10.0.0.5:5432), V(db.example.com:5432) or V(unix:/run/db.sock). It needs this or O(streams[].upstream).
        type: str
      upstream:
        description: The name of an upstream of O(upstreams), of which one server gets the connection.
        type: str
      timeout:
        description:
          - After how many seconds in which nobody says anything it ends.
          - If not given, 600 for connections, and 30 for datagrams, of which nginx cannot know when they are over.
        type: int
      responses:
        description: How many datagrams come back for each with O(streams[].protocol=udp), after which nginx waits for no more, such as V(1) for DNS.
        type: int
      connections:
        description: How many connections somebody may have there at a time, by address. If not given, any number.
        type: int
      access:
        description: The name of an access policy of O(access), one of addresses alone. Others are refused.
        type: str
      certificate:
        description:
          - The name of the certificate of a site. nginx then speaks TLS with those who connect, and passes on what is inside of it.
          - Of a site with a pair of certificates it is the first.
          - If not given, what is passed on is what comes.
        type: str
      send_proxy_protocol:
        description: Whether the server is told first who connects, in the PROXY protocol, which it has to know.
        type: bool
        default: false
  apps:
    description: The apps that sites may name, described as M(portico.web.gunicorn_deploy#module) does.
    type: list
    elements: dict
    default: []
  state:
    description:
      - V(present) publishes O(sites).
      - V(absent) takes the scope's sites off the host; with the last scope portico.web goes too, and gives back what was
        there before it came. nginx stays installed.
    type: str
    choices: [present, absent]
    default: present
  scope:
    description:
      - Whose sites these are. Plays that each bring some sites to one host publish under names of their own.
      - What one scope publishes, removes or rolls back leaves the others' sites alone. Letters, digits, dots,
        underscores and hyphens.
    type: str
    default: main
  check_lists:
    description:
      - Whether all of Portico's lists that the play has are checked first, as M(portico.web.check) does it. The role says
        yes, and saves a task.
      - O(sites), O(streams), O(apps), O(upstreams), O(access), O(limits) and O(caches) are then the play's own C(nginx_sites), C(nginx_apps)
        and so on, unless they are given.
    type: bool
    default: false
  packages:
    description: Packages that are installed first, where they are missing.
    type: list
    elements: str
    default: []
  repository:
    description:
      - The repository of packages that nginx comes from. If not given, it is the distribution's.
      - apt is told of it before nginx is installed, and that it takes nginx from there. On a host that has the distribution's nginx the
        play is refused, and says how to go on.
      - Without it again, apt has it no longer, and nginx stays as it is. The same with O(state=absent).
    type: dict
    default: {}
    suboptions:
      channel:
        description:
          - One of the repositories of nginx.org, which is for Debian and Ubuntu. V(mainline) is where nginx is developed; what of it is
            mended comes to V(stable), too.
          - The tests of this collection do not reach nginx.org. They use a repository of the same form.
        type: str
        choices: [stable, mainline]
      url:
        description:
          - Instead of O(repository.channel), the URL of a repository of somebody's own, such as a mirror of these. Its suites are
            called as the host's release (C(trixie)), and have the component C(nginx).
        type: str
      key:
        description:
          - The OpenPGP keys that it is signed with, in ASCII armour, as the path of such a file on the controller, or as a URL from which
            the host fetches them.
          - Once there, it is not fetched again. One that has been renewed is, when C(/etc/apt/sources.list.d/portico-nginx.sources) is gone.
        type: str
        default: https://nginx.org/keys/nginx_signing.key
      fingerprints:
        description:
          - The fingerprints of those keys that are trusted. What else is in the file is not.
          - If not given, they are those that nginx.org has published.
        type: list
        elements: str
        default:
          - 573BFD6B3D8FBC641079A6ABABF5BD827BD9BF62
          - 8540A6F18833A80E9C1653A42FD21310B49F6B46
          - 9E9BE90EACBCDE69FE9B204CBCDCD8A38D88A2B3
  modules:
    description:
      - Dynamic modules of nginx that are installed first, by the names of Debian's packages without C(libnginx-mod-), such as V(http-geoip2).
      - Where nginx is its vendor's (O(repository)), they are called as its packages are without C(nginx-module-), such as V(njs), and nginx
        is told to load them.
      - V(brotli) is the two that compress by it, and what nginx compresses is then compressed so for browsers that take it. What others
        do is said in O(extra_config) and O(sites[].extra_config).
      - One that is taken out of the list stays installed.
    type: list
    elements: str
    default: []
  http_port:
    description: The port for plain HTTP. It is also where the ACME challenge is answered.
    type: int
    default: 80
  https_port:
    description: The port for HTTPS, and the one that redirects name, unless it is 443.
    type: int
    default: 443
  trusted_proxies:
    description:
      - The proxies in front of nginx, such as a load balancer or a CDN, by their addresses and networks, or by name (V(cloudflare),
        V(fastly)).
      - What they say of a visitor (its address, whether it came over HTTPS, the number of its request) is believed, and passed on. What
        anybody else says of itself is not.
      - The networks of a CDN are those of this release of the collection. Give them yourself where they have changed since.
    type: list
    elements: str
    default: []
  trusted_header:
    description:
      - The header in which they name the visitor's address. Of a list, as C(X-Forwarded-For) is one, the last that is none of
        O(trusted_proxies) counts.
    type: str
    default: X-Forwarded-For
  proxy_protocol:
    description:
      - Whether the proxies of O(trusted_proxies) pass bytes on and say who asks in the PROXY protocol, instead of in
        O(trusted_header). Then nothing else gets in, but from the host itself.
    type: bool
    default: false
  tls_profile:
    description:
      - Which of Mozilla's profiles for TLS is spoken (guideline 6.0), both with the post-quantum group X25519MLKEM768 where the
        host's OpenSSL has it.
      - V(intermediate) reaches everything that is younger than ten years or so, V(modern) only what speaks TLS 1.3.
    type: str
    choices: [intermediate, modern]
    default: intermediate
  http3:
    description:
      - Whether sites are served over HTTP/3 as well, and tell browsers so. O(https_port) has to be open for UDP.
      - It needs nginx 1.25.0 or newer, built with HTTP/3, as Debian has it since version 13. A reload of nginx ends connections of
        this kind, which browsers then make anew.
    type: bool
    default: false
  sandbox:
    description:
      - Whether nginx's unit is sandboxed. nginx then reads the host's files and writes to no other folder than those that its configuration,
        other people's files included, names for logs, caches and sockets; it cannot start other programs with more rights, and has no
        capability but those for its ports, its logs and its workers.
      - A host on which it does not start so goes on without, and the play says why, as it does where one of the modules that nginx loads runs
        programs (C(lua), C(perl), C(passenger), C(rtmp), C(auth_pam), C(modsecurity)).
      - An nginx that serves sites already is not started anew. It is in the sandbox from its next start on.
    type: bool
    default: true
  resolvers:
    description:
      - The servers that nginx asks for the names of backends with C(resolve), and of OCSP responders that certificates name, by their
        addresses, such as V(192.0.2.53) or V(127.0.0.1:5353).
      - If not given, those of the host's C(/etc/resolv.conf). nginx takes names as they are written, without the domains that are searched.
    type: list
    elements: str
    default: []
  access_log:
    description:
      - How requests are logged where no site says anything else, into C(/var/log/nginx/access.log) (V(combined)) or
        C(/var/log/nginx/access.json.log) (V(json), with how long each step took), or not at all (V(none)).
    type: str
    choices: [combined, json, none]
    default: combined
  extra_config:
    description:
      - Directives of nginx for the http level, for what has no key. They are checked as O(sites[].extra_config) is.
      - What is said here is left out of what Portico says itself, such as C(client_max_body_size).
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description:
      - The new configuration is tested by the host's own nginx and leaves nothing behind.
      - Where nginx is not installed yet, the result says that it was not tested.
  diff_mode:
    support: full
    description: A diff for each file that would change.
  idempotence:
    support: full
    description: What is served already is not published again.
notes:
  - This is an action plugin over M(portico.web.nginx_generation), which is what runs on the host.
seealso:
  - module: portico.web.nginx_generation
  - module: portico.web.nginx_rollback
  - module: portico.web.gunicorn_deploy
  - module: portico.web.certbot_certificate
"""

EXAMPLES = r"""
- name: Publish an app, an old name that leads to it, and a backend in another language
  portico.web.nginx_publish:
    apps: "{{ gunicorn_apps }}"
    sites:
      - name: shop
        server_names: [shop.example.com, www.shop.example.com]
        app: shop
      - name: old-shop
        server_names: [shop.example.org]
        redirect: https://shop.example.com
      - name: reports
        server_names: [reports.example.com]
        locations:
          - path: /
            root: /srv/reports
          - path: /api/
            proxy: http://127.0.0.1:9000

- name: Publish a site with several servers, a verified one over TLS, uploads, a stream, and headers of its own
  portico.web.nginx_publish:
    upstreams:
      - name: films
        balance: least_connections
        servers:
          - address: 10.0.0.1:8000
          - address: 10.0.0.2:8000
          - address: 10.0.0.3:8000
            backup: true
    sites:
      - name: films
        server_names: [films.example.com]
        hsts: {include_subdomains: true}
        csp: default-src 'self'
        headers: {X-Frame-Options: DENY}
        locations:
          - path: /
            upstream: films
          - path: /upload/
            upstream: films
            max_body_size: 4g
            timeout: 600
          - path: /events/
            upstream: films
            unbuffered: [answers]
          - path: /bills/
            proxy: https://bills.internal.example.com/
            backend: {ca: /etc/ssl/internal-ca.pem}
          - path: /media/
            alias: /srv/films
            csp: sandbox
"""

RETURN = r"""
generation:
  description: The number of the configuration that is live after the task.
  returned: success
  type: int
  sample: 3
tested:
  description: Whether nginx itself has tested the new configuration. V(false) in check mode where nginx is missing.
  returned: changed
  type: bool
  sample: true
repository:
  description: Where apt takes nginx from now, or would; nothing where that is the distribution's repository.
  returned: it was another one
  type: str
packages:
  description: The packages that were installed, or would be.
  returned: some were missing
  type: list
  elements: str
waited_for:
  description: The run that this one had to wait for.
  returned: it had to wait
  type: str
files:
  description: The files that differ from what was live, relative to the generation.
  returned: changed
  type: list
  elements: str
  sample: [sites/shop.conf]
"""
