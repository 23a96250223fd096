"""The text that ``teleport configure`` prints, also in ``conf/teleport.yaml``: every key that has an effect, with its
default."""

SAMPLE = """\
# teleport.yaml for a whole cluster on one machine: auth server, proxy and node.
# A key behind '#' shows its default, or an example where the words say so.
# Check a changed file before you start with it: teleport configure --check teleport.yaml

# What applies to every role.
teleport:
    # The name of this host in the cluster. Default: its host name.
    #nodename: graviton

    # Keys, certificates and the state of the cluster. Only root (or the user who runs teleport) should
    # be able to read it. A relative path is taken from the folder of this file; so are all others here.
    data_dir: /var/lib/teleport

    # A host that joins a cluster shows this token once, and keeps its certificates from then on.
    # The token, or the path of a file that holds it (example):
    #auth_token: /etc/teleport/token

    # Where the auth servers are; they are tried in turn. Default: the auth server of this process.
    # Port 3025, unless another is given (example):
    #auth_servers:
    #    - auth.example.com:3025

    # By this the host knows the right auth server when it joins. 'tctl status' prints it there (example):
    #ca_pin: sha256:7e12c17c20d9cb504bbcb3f0236be3f446861f1396dcbb44425fe28ec1c108f1

    # The address under which the rest of the cluster reaches this host, where it is not its own (example):
    #advertise_ip: 10.1.0.5

    # Per listener.
    #connection_limits:
    #    max_connections: 15000
    #    max_users: 250

    log:
        # stderr, stdout, syslog, or the path of a file.
        output: stderr
        # DEBUG, INFO, WARN or ERROR.
        severity: INFO

    # The state of the cluster, on the auth server. Default: the folder 'backend' in data_dir.
    #storage:
    #    type: sqlite
    #    path: /var/lib/teleport/backend

    # SSH algorithms, to allow fewer than the defaults do.
    #ciphers: [aes256-gcm@openssh.com, aes128-gcm@openssh.com, chacha20-poly1305@openssh.com]
    #kex_algos: [mlkem768x25519-sha256, curve25519-sha256, curve25519-sha256@libssh.org]
    #mac_algos: [hmac-sha2-256-etm@openssh.com, hmac-sha2-512-etm@openssh.com]

# The auth server: certificate authorities, users, tokens, the list of hosts.
auth_service:
    enabled: yes
    listen_addr: 0.0.0.0:3025

    # Stands in every certificate and cannot be changed later. Default: made up on the first start (example):
    #cluster_name: example.com

    # Further names of the auth server, for its certificates (example):
    #public_addr: auth.example.com

    # Join tokens without end. Those of 'tctl nodes add' end by themselves, and are better (examples):
    #tokens:
    #    - "node:/etc/teleport/node-token"
    #    - "proxy,node:a-long-random-word"

    authentication:
        type: local
        # otp (a code from an app, beside the password) or off.
        second_factor: otp

    # A connection whose peer answers none of so many keep-alives is closed. 'never' sends none.
    #keep_alive_interval: 30s
    #keep_alive_count_max: 3

# The node: lets users with a certificate log in to this host.
ssh_service:
    enabled: yes
    listen_addr: 0.0.0.0:3022

    # Further names of this host, for its certificate (example):
    #public_addr: node.example.com

    # Users find hosts by these: tsh ls env=test
    labels:
        env: test

    # Labels that programs print (example):
    #commands:
    #- name: kernel
    #  command: [uname, -r]
    #  period: 1h

    # PAM account and session around users' processes, as in sshd (example):
    #pam: {enabled: yes, service_name: sshd}

    # Users set variables in ~/.tsh/environment.
    #permit_user_env: no

    # Variables that clients may set besides LANG, LC_* and a few more (example):
    #accept_env: [EDITOR, "GIT_*"]

    # Whether ports that users forward to their own machines (ssh -R) listen beyond loopback: no, yes
    # (always), or clientspecified (where the user says so).
    #gateway_ports: no

# The proxy: where users come in.
proxy_service:
    enabled: yes
    # SSH
    listen_addr: 0.0.0.0:3023
    # HTTPS: logins and sign-ups
    web_listen_addr: 0.0.0.0:3080

    # How users reach the two, where that differs from this host's name (examples):
    #public_addr: proxy.example.com:3080
    #ssh_public_addr: proxy.example.com:3023

    # The certificate of the web pages, PEM. Default: one that the cluster signs itself (examples):
    #https_key_file: /etc/teleport/proxy-key.pem
    #https_cert_file: /etc/teleport/proxy-cert.pem
"""
