# What the package's /etc/redeliver/redeliver.yaml has otherwise than the one that ships.
1c# /etc/redeliver/redeliver.yaml, see redeliver.yaml(5). `redeliver check` tells all errors at once, with their places;\
# `systemctl reload redeliver` takes changes over.
2c# Every key that is left out has the value it has here, but for stateDirectory and passwordFile.
s|^stateDirectory: \./var .*|stateDirectory: /var/lib/redeliver     # mail, and the record of it|
s|^  # password: \["\.\.\."\].*|  passwordFile: admin.password         # made at the first installation; also passwordReadonlyFile, passwordNodeleteFile|
s|^  # directory: log .*|  # directory: /var/log/redeliver      # without it, to the journal only|
/^dns:/i\
sendmail:                              # mail that is submitted on this machine; see redeliver.yaml(5)\
  aliasesFile: /etc/aliases            # who gets the mail of root and of other local names: root: admin@example.net\
  # from: relay@example.com            # the sender of mail whose program names none, or a user of this machine\

