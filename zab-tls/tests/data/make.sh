#!/bin/sh
# Makes the stores and certificates beside it, with OpenSSL 3 and the keytool of a JDK 17. All passwords are
# "changeit"; the keys protect nothing. What is there is kept: remove files to have them made anew.
set -eu
cd "$(dirname "$0")"
export SECRET=changeit
quiet() { "$@" >/dev/null 2>&1; }
subject="/C=DE/O=Test"

# A CA, and leaves that it has issued.
openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -x509 -new -key ca.key -days 36500 -subj "$subject/CN=Test CA" -out ca.pem \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
issue() { # name, subject, days, extensions
    [ -e "$1.key" ] || openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
    printf '%s\n' "$4" > ext
    openssl req -new -key "$1.key" -subj "$2" | quiet openssl x509 -req -CA ca.pem -CAkey ca.key \
        -CAcreateserial -days "$3" -extfile ext -out "$1.pem" ${5-}
    rm -f ext
}
issue leaf "$subject/CN=zk1.example.com" 36500 "subjectAltName=DNS:localhost,DNS:zk-*.example.com,IP:127.0.0.1,IP:::1"
issue cn "$subject/CN=localhost" 36500 "basicConstraints=CA:FALSE"
issue server "$subject/CN=server" 36500 "extendedKeyUsage=serverAuth"
# OpenSSL 3.0 cannot begin in the past.
[ -e expired.key ] || openssl ecparam -name prime256v1 -genkey -noout -out expired.key
openssl req -new -key expired.key -subj "$subject/CN=expired" -out expired.csr
openssl pkcs12 -export -passout env:SECRET -inkey ca.key -in ca.pem -name ca -out ca.p12
quiet keytool -gencert -keystore ca.p12 -storepass changeit -alias ca -infile expired.csr -rfc -startdate -2y \
    -validity 365 -ext san=dns:localhost,ip:127.0.0.1 -outfile expired.pem
rm -f expired.csr ca.p12
openssl genrsa -out rsa.key 2048 2>/dev/null
issue rsa "$subject/CN=rsa" 36500 "subjectAltName=DNS:localhost,IP:127.0.0.1"

# Leaves that nobody has issued: of a CA's form, of version 1, expired, of another CA.
openssl ecparam -name prime256v1 -genkey -noout -out self.key
openssl req -x509 -new -key self.key -days 36500 -subj "$subject/CN=self" -out self-ca.pem
openssl req -new -key self.key -subj "$subject/CN=v1" |
    quiet openssl x509 -req -signkey self.key -days 36500 -out self-v1.pem
rm -f late.p12
quiet keytool -genkeypair -alias late -keyalg EC -groupname secp256r1 -dname CN=late -startdate -2y -validity 365 \
    -keystore late.p12 -storepass changeit
quiet keytool -exportcert -rfc -alias late -keystore late.p12 -storepass changeit -file self-late.pem

# Lists of the CA's: one on which the certificate `cn` is, one on which nobody is, one that is out of date; and one
# of a CA that has issued nothing.
list() { # file, CA, key, options
    printf '[ca]\ndefault_ca=ca\ndatabase=index\ndefault_md=sha256\ncrlnumber=number\n' > conf
    echo 01 > number
    quiet openssl ca -config conf -cert "$2" -keyfile "$3" -gencrl -out "$1" ${4-}
}
: > index
list nobody.crl ca.pem ca.key "-crldays 36500"
list other.crl self-ca.pem self.key "-crldays 36500"
quiet openssl ca -config conf -cert ca.pem -keyfile ca.key -revoke cn.pem
list revoked.crl ca.pem ca.key "-crldays 36500"
list late.crl ca.pem ca.key "-crl_lastupdate 20200101000000Z -crl_nextupdate 20200201000000Z"
rm -f conf index index.* number number.old

# A subject with everything that RFC 2253 has rules for.
openssl req -x509 -new -key self.key -days 36500 -outform DER -out acme.der \
    -subj "/emailAddress=a@b.c/C=DE/ST=BE/L=Berlin/O=Acme, Inc/OU=Ops Team/CN=zk1.example.com"

# PEM in its shapes.
cat leaf.pem ca.pem > chain.pem
openssl pkcs8 -topk8 -nocrypt -in leaf.key -out pkcs8.key
cat pkcs8.key chain.pem > pkcs8.store.pem
cat leaf.key chain.pem > sec1.store.pem
openssl rsa -in rsa.key -traditional -out pkcs1.key 2>/dev/null
cat rsa.pem pkcs1.key > pkcs1.store.pem
encrypted() { openssl pkcs8 -topk8 -in leaf.key -passout env:SECRET "$@"; cat chain.pem; }
encrypted > pbes2.store.pem
encrypted -v2 aes-128-cbc -v2prf hmacWithSHA1 > pbes2-sha1.store.pem
encrypted -v2 des3 -v2prf hmacWithSHA512 > pbes2-des3.store.pem
encrypted -v1 PBE-SHA1-3DES > pbe-3des.store.pem
openssl ec -in leaf.key -aes128 -passout env:SECRET -out proc-type.store.pem 2>/dev/null

# PKCS#12 by openssl, and what keytool makes of it.
p12() { openssl pkcs12 -export -passout env:SECRET "$@"; }
p12 -inkey leaf.key -in leaf.pem -certfile ca.pem -name zk -out openssl.p12
p12 -inkey leaf.key -in leaf.pem -certfile ca.pem -name zk -legacy -out openssl-legacy.p12
p12 -nokeys -in ca.pem -out openssl-trust.p12
import() { # file, type, options
    rm -f "$1"
    quiet keytool -importkeystore -noprompt -srckeystore openssl.p12 -srcstoretype PKCS12 \
        -srcstorepass changeit -destkeystore "$1" -deststoretype "$2" -deststorepass changeit ${3-}
}
import keytool.p12 PKCS12
import keytool-legacy.p12 PKCS12 -J-Dkeystore.pkcs12.legacy
import keytool.jks JKS
import keytool.jceks JCEKS
for store in trust.jks:JKS trust.p12:PKCS12; do
    rm -f "${store%:*}"
    quiet keytool -importcert -noprompt -alias ca -file ca.pem -keystore "${store%:*}" \
        -storetype "${store#*:}" -storepass changeit
done

# Two keys; and one with a password of its own, which only JKS can have.
rm -f two.p12 own.jks
for alias in first second; do
    quiet keytool -genkeypair -alias $alias -keyalg EC -groupname secp256r1 -dname CN=$alias -validity 36500 \
        -keystore two.p12 -storepass changeit
done
quiet keytool -genkeypair -alias own -keyalg EC -groupname secp256r1 -dname CN=own -validity 36500 \
    -storetype JKS -keystore own.jks -storepass changeit -keypass another
rm -f ca.srl

# Leaves of version 1: of the CA, of one below it, of one that only has its name, and expired.
old() { # name, CA, its key
    openssl req -new -key self.key -subj "$subject/CN=old" | quiet openssl x509 -req -CA "$2" -CAkey "$3" -set_serial 7 \
        -days 36500 -out "$1.pem"
}
openssl ecparam -name prime256v1 -genkey -noout -out middle.key
issue middle "$subject/CN=Middle CA" 36500 "basicConstraints=critical,CA:TRUE"
openssl req -x509 -new -key middle.key -days 36500 -subj "$subject/CN=Test CA" -out false-ca.pem
old old ca.pem ca.key
old old-middle middle.pem middle.key
old old-false false-ca.pem middle.key
printf '[ca]\ndefault_ca=ca\ndatabase=index\nserial=number\nnew_certs_dir=.\ndefault_md=sha256\npolicy=any\n[any]\ncommonName=supplied\norganizationName=optional\ncountryName=optional\n' > conf
: > index
echo 08 > number
openssl req -new -key self.key -subj "$subject/CN=old" -out old.csr
quiet openssl ca -batch -notext -config conf -cert ca.pem -keyfile ca.key -in old.csr -out old-expired.pem \
    -startdate 20200101000000Z -enddate 20200201000000Z
rm -f conf index index.* number number.old old.csr 08.pem
