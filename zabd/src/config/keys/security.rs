//! What protects: identities, TLS, SASL; and what lets be seen: the AdminServer, audit
//! (`ProviderRegistry`, `AuthenticationHelper`, `X509Util`, `JettyAdminServer`, `ZKAuditProvider`).

use super::Fate::{Checked, Demands, Ignored, Refused, Used, Warned};
use super::Reader::{Bool, GetInt, GetLong, ParseInt, Text, Unless};
use super::When::{Always, Changed, NotIn, On};
use super::{Key, Place, Section};

const MIN: i32 = i32::MIN;
const NO_KERBEROS: &str = "Kerberos is not supported";
const NO_X509: &str = "there is no such setting of the scheme x509";

pub(super) const IDENTITIES: Section = Section {
    title: "Identities and logins",
    place: Place::Property,
    keys: keys! {
        "DigestAuthenticationProvider.enabled", Bool, "true", Used("clients may log in with the scheme digest");
        "DigestAuthenticationProvider.superDigest", Text, "", Used("super:<base64>: the digest of the super user");
        "DigestAuthenticationProvider.digestAlg", Text, "SHA1", Demands(&["SHA1", "SHA-1", "SHA", "SHA-224", "SHA-256", "SHA-384", "SHA-512"], "the hash function of the scheme digest");
        "enforce.auth.enabled", Bool, "false", Checked("clients must log in with one of enforce.auth.schemes; refused if one of those is not there");
        "enforce.auth.schemes", Text, "", Checked("digest, ip, x509 and sasl, joined by commas, with enforce.auth.enabled; refused are digest if it is off, x509 without secureClientPort or client.portUnification, and sasl without its provider or a JAAS file");
        "sessionRequireClientSASLAuth", Bool, "false", Checked("clients must log in by SASL, whatever enforce.auth.* say; needs its provider and a JAAS file");
        "allowSaslFailedClients", Bool, "false", Used("clients that fail to log in by SASL go on without, unless they must");
        "authProvider.*", Text, "", Checked("of the classes of org.apache.zookeeper.server.auth: ip and digest are always there, x509 with TLS, EnsembleAuthenticationProvider can be added, SASLAuthenticationProvider lets ACLs have the scheme sasl, others are warned of");
        "superUser", Text, "", Used("who has logged in by SASL with this name is the super user");
        "superUser.*", Text, "", Used("who has logged in by SASL with one of these names is the super user");
        "X509AuthenticationProvider.superUser", Text, "", Used("the subject of a certificate (RFC 2253), whose owner is the super user");
        "X509AuthenticationProvider.*", Text, "", Warned(Always, NO_X509);
        "IPAuthenticationProvider.usexforwardedfor", Bool, "false", Checked("the AdminServer takes the first address of X-Forwarded-For for the scheme ip: only behind a proxy that writes it");
        "SASLAuthenticationProvider.superPassword", Text, "", Checked("the password of the user super, who has to be in the JAAS file");
        "letAnySaslUserDoX", Text, "", Used("an id that stands in ACLs for whoever has logged in by SASL");
        "sasl.serverconfig", Text, "Server", Checked("the section of the JAAS file with the clients' names and passwords");
        "sasl.*", Text, "", Ignored("settings of clients");
        "kerberos.removeHostFromPrincipal", Bool, "false", Used("of service/host@REALM, without the host");
        "kerberos.removeRealmFromPrincipal", Bool, "false", Used("of service/host@REALM, without the realm");
        "kerberos.*", Text, "", Warned(Always, NO_KERBEROS);
        "requireKerberosConfig", Bool, "false", Refused(On, "Kerberos is not supported");
        "security.auth_to_local", Text, "DEFAULT", Warned(Changed, "only the rule DEFAULT is known; other names are taken as they are");
        "server.realm", Text, "", Checked("names with this realm are at home here; as a property only, as a line of the file it would be a server");
        "server.principal", Text, "", Ignored("a setting of clients");
        "kinit", Text, "", Ignored("used with Kerberos only");
    },
};

pub(super) const TLS: Section = Section {
    title: "TLS",
    place: Place::Property,
    keys: keys! {
        "client.portUnification", Bool, "false", Checked("clients may use TLS on clientPort, too; needs ssl.keyStore.location");
        "client.certReload", Bool, "false", Ignored("certificates are read again whenever they change");
        "client.secure", Bool, "false", Ignored("a setting of clients");
        "ssl.keyStore.location", Text, "", Checked("the file with this server's key and certificate, in PEM, PKCS#12 or JKS");
        "ssl.keyStore.password", Text, "", Checked("what opens it");
        "ssl.keyStore.passwordPath", Text, "", Checked("a file with the password, instead of keyStore.password");
        "ssl.keyStore.type", Text, "", Refused(NotIn(&["", "JKS", "PEM", "PKCS12"]), "such stores cannot be read; convert it with keytool -importkeystore -deststoretype PKCS12. (Which of the readable formats it is shows in the file, not here)");
        "ssl.trustStore.location", Text, "", Checked("the file with certificates of CAs, or of clients themselves, in PEM, PKCS#12 or JKS");
        "ssl.trustStore.password", Text, "", Checked("what opens it");
        "ssl.trustStore.passwordPath", Text, "", Checked("a file with the password, instead of trustStore.password");
        "ssl.trustStore.type", Text, "", Refused(NotIn(&["", "JKS", "PEM", "PKCS12"]), "such stores cannot be read; convert it with keytool -importkeystore -deststoretype PKCS12. (Which of the readable formats it is shows in the file, not here)");
        "ssl.clientAuth", Text, "need", Checked("none, want or need: whether clients that connect have to show a certificate; none and want do without a trust store, need does not");
        "ssl.protocol", Text, "", Checked("TLSv1.2 for that alone; everything else means TLS 1.2 and 1.3");
        "ssl.enabledProtocols", Text, "TLSv1.3,TLSv1.2", Checked("joined by commas; older ones are warned of, and refused if nothing else is left");
        "ssl.ciphersuites", Text, "", Checked("joined by commas, by their registered names; those that are not there are warned of, and refused if none is left");
        "ssl.hostnameVerification", Bool, "true", Checked("false turns ssl.clientHostnameVerification off, too");
        "ssl.clientHostnameVerification", Bool, "false", Checked("the certificate of a client must be for the address it comes from");
        "ssl.allowReverseDnsLookup", Bool, "false", Ignored("names are never asked for by address");
        "ssl.crl", Bool, "false", Checked("certificates of clients have to be on the lists of zab.tls.crlFile as not revoked; refused without that file, as nothing is fetched during a handshake");
        "ssl.ocsp", Bool, "false", Refused(On, "nothing is fetched during a handshake; see ssl.crl for lists of revoked certificates in a file");
        "ssl.handshakeDetectionTimeoutMillis", GetInt(1), "5000", Ignored("for members only, as in ZooKeeper");
        "ssl.context.supplier.class", Text, "", Refused(Always, "there is no Java virtual machine to load a class");
        "ssl.authProvider", Text, "x509", Refused(NotIn(&["x509"]), "certificates give clients no identity of another scheme");
        "ssl.sslProvider", Text, "JDK", Ignored("there is one implementation of TLS");
        "ssl.quorum.keyStore.location", Text, "", Checked("the file with this server's key and certificate, in PEM, PKCS#12 or JKS");
        "ssl.quorum.keyStore.password", Text, "", Checked("what opens it");
        "ssl.quorum.keyStore.passwordPath", Text, "", Checked("a file with the password, instead of keyStore.password");
        "ssl.quorum.keyStore.type", Text, "", Refused(NotIn(&["", "JKS", "PEM", "PKCS12"]), "such stores cannot be read; convert it with keytool -importkeystore -deststoretype PKCS12. (Which of the readable formats it is shows in the file, not here)");
        "ssl.quorum.trustStore.location", Text, "", Checked("the file with certificates of CAs, or of members themselves, in PEM, PKCS#12 or JKS");
        "ssl.quorum.trustStore.password", Text, "", Checked("what opens it");
        "ssl.quorum.trustStore.passwordPath", Text, "", Checked("a file with the password, instead of trustStore.password");
        "ssl.quorum.trustStore.type", Text, "", Refused(NotIn(&["", "JKS", "PEM", "PKCS12"]), "such stores cannot be read; convert it with keytool -importkeystore -deststoretype PKCS12. (Which of the readable formats it is shows in the file, not here)");
        "ssl.quorum.clientAuth", Text, "need", Checked("none, want or need: whether members that connect have to show a certificate");
        "ssl.quorum.protocol", Text, "", Checked("TLSv1.2 for that alone; everything else means TLS 1.2 and 1.3");
        "ssl.quorum.enabledProtocols", Text, "TLSv1.3,TLSv1.2", Checked("joined by commas; older ones are warned of, and refused if nothing else is left");
        "ssl.quorum.ciphersuites", Text, "", Checked("joined by commas, by their registered names; those that are not there are warned of, and refused if none is left");
        "ssl.quorum.hostnameVerification", Bool, "", Checked("a member whose certificate is not for the host it was dialled at, nor for its address, is refused; without this key it is warned of only, as ZooKeeper 3.9 does not look, unless fips-mode=false");
        "ssl.quorum.clientHostnameVerification", Bool, "true", Checked("the same for members that connect: by their address, or the host of any member");
        "ssl.quorum.allowReverseDnsLookup", Bool, "false", Ignored("names are never asked for by address");
        "ssl.quorum.crl", Bool, "false", Checked("the same for certificates of members");
        "ssl.quorum.ocsp", Bool, "false", Refused(On, "nothing is fetched during a handshake; see ssl.crl for lists of revoked certificates in a file");
        "ssl.quorum.handshakeDetectionTimeoutMillis", GetInt(1), "5000", Checked("milliseconds for the first byte of a member that connects");
        "ssl.quorum.context.supplier.class", Text, "", Refused(Always, "there is no Java virtual machine to load a class");
        "ssl.quorum.sslProvider", Text, "JDK", Ignored("there is one implementation of TLS");
        "fips-mode", Bool, "true", Checked("false: names of members are verified unless ssl.quorum.hostnameVerification is false, as in ZooKeeper 3.8. No cryptography is chosen by it, in ZooKeeper neither");
        "netty.server.outstandingHandshake.limit", GetInt(MIN), "-1", Checked("handshakes with clients at a time; further connections are closed; below 1 for any number");
        "netty.server.earlyDropSecureConnectionHandshakes", Bool, "false", Ignored("handshakes take a bounded part of the time whether the server serves or not");
    },
};

pub(super) const OBSERVING: Section = Section {
    title: "AdminServer and audit",
    place: Place::Property,
    keys: keys! {
        "admin.enableServer", Unless("false"), "true", Checked("the AdminServer, with the commands, the probes and the page");
        "admin.serverPort", GetInt(0), "8080", Checked("its port; if it is taken, a member goes on without, and a server alone where this key is not set");
        "admin.serverAddress", Text, "0.0.0.0", Checked("its address or name");
        "admin.commandURL", Text, "/commands", Checked("in front of the names of commands");
        "admin.idleTimeout", GetInt(1), "30000", Checked("milliseconds after which a connection on which nothing moves is closed");
        "admin.httpVersion", GetInt(MIN), "11", Refused(NotIn(&["11"]), "the AdminServer speaks HTTP/1.1");
        "admin.portUnification", Bool, "false", Checked("the AdminServer speaks HTTP and HTTPS on its port, told apart by the first byte; needs ssl.quorum.keyStore.location");
        "admin.forceHttps", Bool, "false", Checked("the AdminServer speaks HTTPS alone, with the key store of members, ssl.quorum.keyStore.location, and their enabledProtocols, ciphersuites and crl");
        "admin.needClientAuth", Bool, "false", Checked("whoever comes by HTTPS has to show a certificate that ssl.quorum.trustStore.location trusts; refused without forceHttps or portUnification");
        "admin.rateLimiterIntervalInMS", ParseInt(0), "300000", Checked("milliseconds between two snapshots that the command snapshot has written, and between two states that restore has put in place");
        "admin.snapshot.enabled", Bool, "true", Checked("the command snapshot is answered");
        "admin.restore.enabled", Bool, "true", Checked("the command restore is answered");
        "audit.enable", Bool, "false", Checked("each write of a client has a line, and each start and stop of the server, in the log under the target audit or in auditlog.file");
        "audit.impl.class", Text, "", Checked("with audit.enable: org.apache.zookeeper.audit.Slf4jAuditLogger or Log4jAuditLogger, which are the same here; others are refused");
        "auditlog.file", Text, "", Checked("with audit.enable: a file for the audit log, in log.dir unless its path is absolute");
        "auditlog.threshold", Text, "INFO", Checked("with audit.enable: ERROR for what was refused only");
        "auditlog.maxfilesize", Text, "10MB", Checked("size at which auditlog.file is renamed and a new one begun: a number of bytes, or of KB, MB, GB");
        "auditlog.maxbackupindex", GetInt(0), "10", Checked("how many files of the audit log are kept besides");
        "log.dir", Text, ".", Checked("where auditlog.file is; the log itself goes to stderr");
        "kerberos.minReLoginTimeMs", GetLong(i64::MIN), "60000", Warned(Changed, NO_KERBEROS);
    },
};
