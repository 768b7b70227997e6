//! What protects: identities, TLS, SASL; and what lets be seen: the AdminServer, audit
//! (`ProviderRegistry`, `AuthenticationHelper`, `X509Util`, `JettyAdminServer`, `ZKAuditProvider`).

use super::Fate::{Checked, Demands, Ignored, Refused, Used, Warned};
use super::Reader::{Bool, GetInt, GetLong, ParseInt, Text, Unless};
use super::When::{Always, Changed, On};
use super::{Key, Place, Section};

const MIN: i32 = i32::MIN;
const NO_SASL: &str = "SASL is not supported";
const NO_TLS: &str = "TLS is not supported";
const NO_ADMIN: &str = "there is no AdminServer (HTTP); the four-letter words tell most of it";

pub(super) const IDENTITIES: Section = Section {
    title: "Identities and logins",
    place: Place::Property,
    keys: keys! {
        "DigestAuthenticationProvider.enabled", Bool, "true", Used("clients may log in with the scheme digest");
        "DigestAuthenticationProvider.superDigest", Text, "", Used("super:<base64>: the digest of the super user");
        "DigestAuthenticationProvider.digestAlg", Text, "SHA1", Demands(&["SHA1", "SHA-1", "SHA", "SHA-224", "SHA-256", "SHA-384", "SHA-512"], "the hash function of the scheme digest");
        "enforce.auth.enabled", Bool, "false", Checked("clients must log in with one of enforce.auth.schemes; refused if one of those is not there");
        "enforce.auth.schemes", Text, "", Checked("digest and ip, joined by commas, with enforce.auth.enabled; x509 and sasl are refused, and digest if it is off");
        "sessionRequireClientSASLAuth", Bool, "false", Refused(On, "clients cannot log in with SASL, and all of them would be served without");
        "allowSaslFailedClients", Bool, "false", Warned(On, NO_SASL);
        "authProvider.*", Text, "", Checked("of the classes of org.apache.zookeeper.server.auth: ip and digest are always there, EnsembleAuthenticationProvider can be added, SASL is refused, others are warned of");
        "superUser", Text, "", Warned(Always, "SASL is not supported; nobody becomes the super user by a name");
        "superUser.*", Text, "", Warned(Always, "SASL is not supported; nobody becomes the super user by a name");
        "X509AuthenticationProvider.superUser", Text, "", Warned(Always, "TLS is not supported; nobody becomes the super user by a certificate");
        "X509AuthenticationProvider.*", Text, "", Warned(Always, NO_TLS);
        "IPAuthenticationProvider.usexforwardedfor", Bool, "false", Ignored("for the AdminServer only, which is not there");
        "SASLAuthenticationProvider.superPassword", Text, "", Warned(Always, NO_SASL);
        "letAnySaslUserDoX", Text, "", Warned(Always, NO_SASL);
        "sasl.serverconfig", Text, "Server", Warned(Changed, NO_SASL);
        "sasl.*", Text, "", Ignored("settings of clients");
        "kerberos.*", Text, "", Warned(Always, NO_SASL);
        "requireKerberosConfig", Bool, "false", Refused(On, "Kerberos is not supported");
        "security.auth_to_local", Text, "DEFAULT", Warned(Changed, NO_SASL);
        "server.realm", Text, "", Warned(Always, NO_SASL);
        "server.principal", Text, "", Ignored("a setting of clients");
        "kinit", Text, "", Ignored("used with Kerberos only");
    },
};

pub(super) const TLS: Section = Section {
    title: "TLS",
    place: Place::Property,
    keys: keys! {
        "client.portUnification", Bool, "false", Warned(On, "TLS is not supported; clients that speak it cannot connect to clientPort");
        "client.certReload", Bool, "false", Warned(On, NO_TLS);
        "client.secure", Bool, "false", Ignored("a setting of clients");
        "ssl.clientAuth", Text, "need", Warned(Always, NO_TLS);
        "ssl.*", Text, "", Warned(Always, NO_TLS);
        "ssl.quorum.*", Text, "", Warned(Always, NO_TLS);
        "fips-mode", Bool, "true", Ignored("used with TLS only");
        "netty.server.outstandingHandshake.limit", GetInt(MIN), "-1", Ignored("used with TLS only");
        "netty.server.earlyDropSecureConnectionHandshakes", Bool, "false", Ignored("used with TLS only");
    },
};

pub(super) const OBSERVING: Section = Section {
    title: "AdminServer and audit",
    place: Place::Property,
    keys: keys! {
        "admin.enableServer", Unless("false"), "true", Warned(On, NO_ADMIN);
        "admin.serverPort", GetInt(MIN), "8080", Warned(Always, NO_ADMIN);
        "admin.serverAddress", Text, "0.0.0.0", Warned(Always, NO_ADMIN);
        "admin.commandURL", Text, "/commands", Warned(Always, NO_ADMIN);
        "admin.idleTimeout", GetInt(MIN), "30000", Warned(Changed, NO_ADMIN);
        "admin.httpVersion", GetInt(MIN), "11", Warned(Changed, NO_ADMIN);
        "admin.portUnification", Bool, "false", Warned(On, NO_ADMIN);
        "admin.forceHttps", Bool, "false", Warned(On, NO_ADMIN);
        "admin.needClientAuth", Bool, "false", Warned(On, NO_ADMIN);
        "admin.rateLimiterIntervalInMS", ParseInt(MIN), "300000", Warned(Changed, NO_ADMIN);
        "admin.snapshot.enabled", Bool, "true", Ignored("there is no AdminServer, so no such command");
        "admin.restore.enabled", Bool, "true", Ignored("there is no AdminServer, so no such command");
        "audit.enable", Bool, "false", Warned(On, "no audit log is written");
        "audit.impl.class", Text, "", Ignored("used with audit.enable only");
        "kerberos.minReLoginTimeMs", GetLong(i64::MIN), "60000", Warned(Changed, NO_SASL);
    },
};
