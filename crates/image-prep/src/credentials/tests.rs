//! Who wins, and what is used where.

use std::collections::HashMap;

use super::*;

const KEY: &str = include_str!("../../../image-server/tests/iam/private.pem");

/// Everything that can be said, of which a case takes some.
#[derive(Default)]
struct World {
    args: ApiArgs,
    variables: HashMap<&'static str, String>,
    own: config::Profile,
    yc: Option<yc::Profile>,
}

impl World {
    fn choose<T>(&self, ask: impl FnOnce(&Choice<'_>) -> T) -> T {
        let variable = |name: &str| self.variables.get(name).cloned();
        ask(&Choice { args: &self.args, variable: &variable, own: &self.own, yc: self.yc.as_ref() })
    }

    /// Where from, and what.
    fn credentials(&self) -> Option<(By, String)> {
        self.choose(|choice| {
            let endpoint = choice.endpoint_url(false).unwrap();
            let found = choice.credentials(&endpoint).unwrap()?;
            Some((found.by, found.value.to_string()))
        })
    }

    fn endpoint(&self) -> (String, By) {
        let told = self.choose(|choice| choice.endpoint());
        (told.value, told.by)
    }
}

fn key_json() -> String {
    serde_json::json!({"id": "k", "service_account_id": "a", "private_key": KEY}).to_string()
}

fn yc_profile(body: &str) -> Option<yc::Profile> {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, format!("current: p\nprofiles:\n  p:\n{body}")).unwrap();
    yc::Profile::load(&path, None).unwrap()
}

/// Takes away the strongest each time, and sees who is next.
#[test]
fn credentials_in_their_order() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let (token, key) = (file("token", "t1.a\n"), file("key.json", &key_json()));
    let mut world = World {
        args: ApiArgs {
            token_file: token.clone(),
            service_account_key_file: key.clone(),
            instance_service_account: true,
            ..ApiArgs::default()
        },
        variables: HashMap::from([
            ("YC_TOKEN", "y0_b".to_owned()),
            ("YC_IAM_TOKEN", "t1.c".to_owned()),
            ("YC_SERVICE_ACCOUNT_KEY_FILE", key_json()),
        ]),
        own: config::Profile {
            name: "own".to_owned(),
            token_file: token,
            service_account_key_file: key,
            instance_service_account: true,
            ..config::Profile::default()
        },
        yc: yc_profile("    token: t1.d\n"),
    };
    let (key, machine) = ("key k of service account a", "the service account of this machine");
    let own = || By::Profile("own".to_owned());
    type Weaken = fn(&mut World);
    let cases: [(By, &str, Weaken); 11] = [
        (By::Option("--token-file"), "a token", |world| world.args.token_file = None),
        (By::Option("--service-account-key-file"), key, |world| world.args.service_account_key_file = None),
        (By::Option("--instance-service-account"), machine, |w| w.args.instance_service_account = false),
        (By::Variable("YC_TOKEN"), "an OAuth token", |world| drop(world.variables.remove("YC_TOKEN"))),
        (By::Variable("YC_IAM_TOKEN"), "a token", |world| drop(world.variables.remove("YC_IAM_TOKEN"))),
        (By::Variable("YC_SERVICE_ACCOUNT_KEY_FILE"), key, |world| world.variables.clear()),
        (own(), "a token", |world| world.own.token_file = None),
        (own(), key, |world| world.own.service_account_key_file = None),
        (own(), machine, |world| world.own.instance_service_account = false),
        (By::Yc("p".to_owned()), "a token", |world| world.yc = None),
        (By::Default, machine, |world| world.args.endpoint = Some("http://127.0.0.1:1".to_owned())),
    ];
    for (by, what, weaken) in cases {
        assert_eq!(world.credentials(), Some((by, what.to_owned())));
        weaken(&mut world);
    }
    assert_eq!(world.credentials(), None, "nobody else's machine");
}

#[test]
fn endpoints_in_their_order() {
    let mut world = World {
        args: ApiArgs {
            endpoint: Some("https://a".to_owned()),
            cloud: Some(Cloud::Kz),
            ..ApiArgs::default()
        },
        variables: HashMap::from([("YC_ENDPOINT", "b:1".to_owned())]),
        own: config::Profile {
            name: "own".to_owned(),
            endpoint: Some("c".to_owned()),
            cloud: Some(Cloud::Kz),
            folder_id: Some("own-folder".to_owned()),
            ..config::Profile::default()
        },
        yc: yc_profile("    endpoint: api.cloud.yandex.net:443\n    folder-id: yc-folder\n"),
    };
    let kz = "https://compute.api.yandexcloud.kz";
    type Weaken = fn(&mut World);
    let cases: [(&str, By, Weaken); 7] = [
        ("https://a", By::Option("--endpoint"), |world| world.args.endpoint = None),
        (kz, By::Option("--cloud"), |world| world.args.cloud = None),
        ("b:1", By::Variable("YC_ENDPOINT"), |world| world.variables.clear()),
        ("c", By::Profile("own".to_owned()), |world| world.own.endpoint = None),
        (kz, By::Profile("own".to_owned()), |world| world.own.cloud = None),
        ("api.cloud.yandex.net:443", By::Yc("p".to_owned()), |world| world.yc = None),
        ("https://compute.api.cloud.yandex.net", By::Default, |_| {}),
    ];
    for (endpoint, by, weaken) in cases {
        assert_eq!(world.endpoint(), (endpoint.to_owned(), by));
        weaken(&mut world);
    }
    world.yc = yc_profile("    folder-id: yc-folder\n");
    let folder = |world: &World, typed| world.choose(|choice| choice.folder_id(typed).unwrap().value);
    assert_eq!(folder(&world, Some("typed")), "typed");
    assert_eq!(folder(&world, None), "own-folder");
    world.own.folder_id = None;
    assert_eq!(folder(&world, None), "yc-folder");
}

#[test]
fn what_nobody_named_stays_with_its_cloud() {
    let of = |endpoint: &str| World {
        args: ApiArgs { endpoint: Some(endpoint.to_owned()), ..ApiArgs::default() },
        yc: yc_profile("    token: t1.d\n    endpoint: images.example:8443\n"),
        ..World::default()
    };
    let yc = || Some((By::Yc("p".to_owned()), "a token".to_owned()));
    assert_eq!(
        of("https://images.example:8443").credentials(),
        None,
        "named by an option, not by its profile"
    );
    assert_eq!(of("https://compute.api.cloud.yandex.net.example").credentials(), None);
    assert_eq!(of("https://api.yandexcloud.kz").credentials(), yc());
    let mut world = of("https://elsewhere.example");
    world.args.yc_profile = Some("p".to_owned());
    assert_eq!(world.credentials(), yc());
    world.args = ApiArgs::default();
    assert_eq!(world.credentials(), yc(), "the profile's own endpoint");
}

#[test]
fn what_is_no_token_is_not_repeated() {
    let world = |name, value: &str| World {
        variables: HashMap::from([(name, value.to_owned())]),
        ..World::default()
    };
    for (name, value) in [
        ("YC_TOKEN", "two SECRET words"),
        ("YC_SERVICE_ACCOUNT_KEY_FILE", r#"{"id": "k", "service_account_id": "a", "private_key": "SECRET"}"#),
        ("YC_SERVICE_ACCOUNT_KEY_FILE", r#"{"SECRET": "#),
    ] {
        let error = world(name, value)
            .choose(|choice| choice.credentials(&choice.endpoint_url(false).unwrap()).unwrap_err());
        assert!(format!("{error}").contains(name), "{error}");
        assert!(!format!("{error:?} {error}").contains("SECRET"), "{error:?}");
    }
    let plain = World {
        variables: HashMap::from([
            ("YC_ENDPOINT", "127.0.0.1:8080".to_owned()),
            ("YC_PLAINTEXT", "true".to_owned()),
        ]),
        ..World::default()
    };
    assert_eq!(
        plain.choose(|choice| choice.endpoint_url(false).unwrap().value.to_string()),
        "http://127.0.0.1:8080/"
    );
}

#[test]
fn a_profile_goes_to_its_own_endpoint() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "t1.own\n").unwrap();
    let own = || Some((By::Profile("default".to_owned()), "a token".to_owned()));
    let mut world = World {
        own: config::Profile {
            name: "default".to_owned(),
            token_file: Some(path),
            ..config::Profile::default()
        },
        ..World::default()
    };
    assert_eq!(world.credentials(), own(), "the default cloud");
    world.args.endpoint = Some("https://elsewhere.example".to_owned());
    assert_eq!(world.credentials(), None, "a server that is tried out");
    world.args.endpoint = Some("https://api.yandexcloud.kz".to_owned());
    assert_eq!(world.credentials(), own(), "a cloud, and the profile says of none");
    world.own.endpoint = Some("https://images.example".to_owned());
    assert_ne!(world.credentials(), own(), "it is for another");
    world.own.is_named = true;
    assert_eq!(world.credentials(), own(), "named by --profile");
    world.own.is_named = false;
    world.args.endpoint = None;
    assert_eq!(world.credentials(), own(), "its own endpoint");
    world.variables = HashMap::from([("YC_ENDPOINT", "https://elsewhere.example".to_owned())]);
    assert_eq!(world.credentials(), None);
}

#[test]
fn a_profile_of_yc_that_was_typed_comes_before_the_environment() {
    let mut world = World {
        variables: HashMap::from([
            ("YC_TOKEN", "y0_b".to_owned()),
            ("YC_ENDPOINT", "https://elsewhere.example".to_owned()),
        ]),
        yc: yc_profile("    token: t1.d\n    endpoint: images.example:8443\n"),
        ..World::default()
    };
    assert_eq!(world.endpoint().1, By::Variable("YC_ENDPOINT"));
    world.args.yc_profile = Some("p".to_owned());
    let yc = By::Yc("p".to_owned());
    assert_eq!(world.endpoint(), ("images.example:8443".to_owned(), yc.clone()));
    assert_eq!(world.credentials(), Some((yc, "a token".to_owned())));
}
