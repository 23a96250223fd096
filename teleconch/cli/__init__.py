"""What people type: teleport, tsh, tctl.

::

    boundary, tables      errors as sentences and exit statuses; output as tables, JSON, YAML

    tsh                   tsh ── tsh_command, tsh_flags, tsh_options        the command line, read without click
                           ├ tsh_ssh ── tsh_request ┬ client.road           tsh ssh, with little loaded
                           │                        └ tsh_forward           with -L, -R, -D, -A, -N, several nodes
                           └ tsh_verbs, tsh_params                          all other verbs, through click
                               tsh_login, tsh_signup, tsh_ls, tsh_scp (tsh_progress), tsh_config
                          tsh_reactor, tsh_api                              what needs a reactor, and the auth API

    tctl                  tctl ── tctl_params, tctl_where                   which auth server
                               tctl_* has a group of verbs each

    teleport              teleport, teleport_start, quickstart              the daemon, and a first configuration
"""
