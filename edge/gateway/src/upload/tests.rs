use http::{HeaderMap, Method};
use orfeas_protocol::{Code, Sha256Digest};

use super::*;

/// The pictures in their order.
type Pictures = Vec<(Pictured, Vec<u8>)>;

/// The front, if there was one, with its declaration; and the options.
type Read = (Option<(ImageHead, Vec<u8>)>, RequestOptions);

fn read(query: &str, content_type: Option<&str>, body: &[u8], chunk_bytes: usize) -> Result<Read, Failure> {
    let (pictures, heads, options) = read_all(Purpose::Job, query, content_type, body, chunk_bytes)?;
    let front = pictures.into_iter().zip(heads).find(|((pictured, _), _)| *pictured == Pictured::Front);
    Ok((front.map(|((_, bytes), head)| (head, bytes)), options))
}

fn read_all(
    purpose: Purpose,
    query: &str,
    content_type: Option<&str>,
    body: &[u8],
    chunk_bytes: usize,
) -> Result<(Pictures, Vec<ImageHead>, RequestOptions), Failure> {
    let mut headers = HeaderMap::new();
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
    }
    headers.insert(http::header::CONTENT_LENGTH, body.len().into());
    let head = Head::new(Method::POST, &format!("/api/submit-job?{query}"), headers, [0; 16]);
    let mut reader = UploadReader::new(&head, purpose, Limits::default())?;
    let (mut pictures, mut heads): (Pictures, _) = (Vec::new(), Vec::new());
    let mut take = |event| match event {
        Event::Image(pictured, head) => {
            assert!(pictures.iter().all(|(earlier, _)| *earlier != pictured));
            pictures.push((pictured, Vec::new()));
            heads.push(head);
        }
        Event::Data(data) => pictures.last_mut().unwrap().1.extend_from_slice(&data),
    };
    for chunk in body.chunks(chunk_bytes) {
        reader.push(Bytes::copy_from_slice(chunk))?;
        while let Some(event) = reader.next_event()? {
            take(event);
        }
    }
    let upload = reader.finish()?;
    upload.last.into_iter().for_each(&mut take);
    Ok((pictures, heads, upload.options))
}

fn form(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (disposition, value) in parts {
        body += &format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n");
    }
    (body + "--b--\r\n").into_bytes()
}

const FORM: Option<&str> = Some("multipart/form-data; boundary=b");
const JSON: Option<&str> = Some("application/json; charset=utf-8");

#[test]
fn options_may_stand_before_and_after_the_picture() {
    let body = form(&[("name=quality", "9"), ("name=image; filename=a.png", "PIXELS"), ("name=seed", "7")]);
    for chunk_bytes in [1, 7, 1000] {
        let (image, options) = read("texture=false", FORM, &body, chunk_bytes).unwrap();
        let (head, content) = image.unwrap();
        assert_eq!((head.file_name.as_deref(), content.as_slice()), (Some("a.png"), &b"PIXELS"[..]));
        assert_eq!((options.job.quality, options.job.seed, options.job.texture), (Some(9), Some(7), false));
    }
}

#[test]
fn a_bare_picture_takes_its_options_from_the_query() {
    let (image, options) = read("quality=5&format=stl", Some("image/png"), b"PIXELS", 4).unwrap();
    let (head, content) = image.unwrap();
    assert_eq!((head.content_type.as_deref(), content.as_slice()), (Some("image/png"), &b"PIXELS"[..]));
    assert_eq!(options.job.format.as_str(), "stl");
}

#[test]
fn json_brings_a_picture_or_names_one() {
    let body = br#"{"type":"3d_generation","params":{"image_base64":"UElYRUxT","quality":7},"priority":9}"#;
    for chunk_bytes in [1, 5, 1000] {
        let (image, options) = read("", JSON, body, chunk_bytes).unwrap();
        assert_eq!(image.unwrap().1, b"PIXELS");
        assert_eq!((options.job.quality, options.job.priority.get()), (Some(7), 9));
    }
    let digest = Sha256Digest::of("x");
    let body = format!(r#"{{"params":{{"image_sha256":"{digest}","image_base64":null}}}}"#);
    let (image, options) = read("", JSON, body.as_bytes(), 10).unwrap();
    assert_eq!((image, options.image_sha256), (None, Some(digest)));
    let (image, options) = read(&format!("image_sha256={digest}"), None, b"", 1).unwrap();
    assert_eq!((image, options.image_sha256), (None, Some(digest)));
}

#[test]
fn an_empty_picture_is_still_a_picture() {
    let body = form(&[("name=image; filename=a.png", "")]);
    assert_eq!(read("", FORM, &body, 9).unwrap().0.unwrap().1, b"");
    let json = br#"{"params":{"image_base64":""}}"#;
    assert_eq!(read("", JSON, json, 9).unwrap().0.unwrap().1, b"");
}

#[test]
fn a_form_brings_each_side_once_and_in_any_order() {
    use Pictured::{Front, Other};
    let body = form(&[
        ("name=back; filename=b.png", "BACK"),
        ("name=seed", "7"),
        ("name=front; filename=f.png", "FRONT"),
        ("name=right", "RIGHT"),
        ("name=left; filename=l.webp", ""),
    ]);
    let expected = [(Other(Side::Back), "BACK"), (Front, "FRONT"), (Other(Side::Right), "RIGHT")];
    for chunk_bytes in [1, 7, 1000] {
        let (pictures, heads, options) = read_all(Purpose::Job, "", FORM, &body, chunk_bytes).unwrap();
        let (last, first) = pictures.split_last().unwrap();
        assert!(first.iter().zip(expected).all(|(got, (side, text))| *got == (side, text.into())));
        assert_eq!(*last, (Other(Side::Left), Vec::new()), "an empty picture is a picture");
        assert_eq!(heads[0].file_name.as_deref(), Some("b.png"));
        assert_eq!(options.job.seed, Some(7));
    }
}

#[test]
fn sides_are_no_parts_of_a_picture_that_is_only_stored() {
    let image = ("name=image; filename=a", "x");
    let stored = |parts: &[(&str, &str)]| read_all(Purpose::Store, "", FORM, &form(parts), 50);
    assert_eq!(stored(&[image]).unwrap().0, [(Pictured::Front, b"x".to_vec())]);
    for part in ["name=front; filename=a", "name=left; filename=a"] {
        assert_eq!(stored(&[image, (part, "x")]).unwrap_err().code(), Code::InvalidOption, "{part}");
    }
}

#[test]
fn malformed_bodies_are_invalid_requests() {
    let image = ("name=image; filename=a", "x");
    let left = ("name=left; filename=a", "x");
    let digest = Sha256Digest::of("x").to_string();
    let whole = form(&[image]);
    let cases: Vec<(Option<&str>, Vec<u8>)> = vec![
        (FORM, b"--b\r\nbroken".to_vec()),
        (FORM, whole[..whole.len() - 8].to_vec()),
        (FORM, form(&[])),
        (FORM, form(&[("name=seed", "1")])),
        (FORM, form(&[image, image])),
        (FORM, form(&[image, ("name=front; filename=a", "x")])),
        (FORM, form(&[image, left, left])),
        (FORM, form(&[left])),
        (FORM, form(&[("name=left_sha256", &digest), image, left])),
        (FORM, form(&[image, left, ("name=left_sha256", &digest)])),
        (FORM, form(&[image, ("name=image_sha256", &digest)])),
        (Some("multipart/form-data"), whole.clone()),
        (JSON, b"{".to_vec()),
        (JSON, b"[]".to_vec()),
        (JSON, br#"{"params":[]}"#.to_vec()),
        (JSON, br#"{"params":{"image_base64":7}}"#.to_vec()),
        (JSON, br#"{"params":{"image_base64":"?"}}"#.to_vec()),
        (JSON, b"{}".to_vec()),
        (None, Vec::new()),
    ];
    for (content_type, body) in cases {
        let failure = read("", content_type, &body, 6).unwrap_err();
        assert_eq!(failure.code(), Code::InvalidRequest, "{}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn bad_options_are_named_wherever_they_stand() {
    let image = ("name=image; filename=a", "x");
    let long = "9".repeat(5000);
    let cases: Vec<(&str, Option<&str>, Vec<u8>)> = vec![
        ("quality=11", FORM, form(&[image])),
        ("", FORM, form(&[("name=quality", "11"), image])),
        ("", FORM, form(&[image, ("name=quality", "11")])),
        ("", FORM, form(&[("name=quality", &long), image])),
        ("", FORM, form(&[("name=colour", "red"), image])),
        ("quality=5", FORM, form(&[("name=quality", "5"), image])),
        ("", JSON, br#"{"quality":5,"params":{"image_base64":"AAAA"}}"#.to_vec()),
        ("", JSON, br#"{"params":{"image_base64":"AAAA","quality":"high"}}"#.to_vec()),
    ];
    for (query, content_type, body) in cases {
        let failure = read(query, content_type, &body, 64).unwrap_err();
        assert_eq!(failure.code(), Code::InvalidOption, "{}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn a_body_that_is_announced_too_long_is_refused_unread() {
    let limits = Limits::default();
    let refused_for = |purpose, content_type: Option<&str>, length: u64| {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        headers.insert(http::header::CONTENT_LENGTH, length.into());
        let head = Head::new(Method::POST, "/api/uploads", headers, [0; 16]);
        UploadReader::new(&head, purpose, limits).err().map(|failure| failure.code())
    };
    let refused = |content_type, length| refused_for(Purpose::Job, content_type, length);
    assert_eq!(refused(Some("image/png"), limits.bytes_max), None);
    assert_eq!(refused(Some("image/png"), limits.bytes_max + 1), Some(Code::ImageTooLarge));
    assert_eq!(refused_for(Purpose::Store, FORM, limits.bytes_max + 1000), None);
    assert_eq!(refused_for(Purpose::Store, FORM, limits.bytes_max + 100_000), Some(Code::ImageTooLarge));
    assert_eq!(refused(FORM, 4 * limits.bytes_max + 1000), None);
    assert_eq!(refused(FORM, 4 * limits.bytes_max + 100_000), Some(Code::ImageTooLarge));
    assert_eq!(refused(JSON, limits.bytes_max * 4 / 3), None);
    assert_eq!(refused(JSON, limits.bytes_max * 3 / 2), Some(Code::ImageTooLarge));
}
